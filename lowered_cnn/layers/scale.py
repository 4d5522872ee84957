"""A scale and a shift: multiplication by weights, and addition of biases, of any shape that broadcasts."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_finite, check_flag, whole_number
from lowered_cnn.gemm import Role, row_sums
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.parameters import Parameter


@dataclass(frozen=True)
class Scale(Layer):
    """y = weight x + bias, with numbers of any `shape` that broadcasts to x without the batch, as in NumPy.

    By default there is one weight and one bias per channel, of shape (C, 1, ..., 1). Weights start at `initial`, biases
    at 0, and neither decays. Without `learned`, they are constants: stored with the network, but seen by no optimizer.
    (With a small `initial` and without a bias, this is LayerScale, Touvron et al., 2021.)
    """

    shape: Shape | None = None
    weight: bool = True
    bias: bool = True
    learned: bool = True
    initial: float = 1.0

    kind: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        for flag in ("weight", "bias", "learned"):
            check_flag(f"Scale: {flag}", getattr(self, flag))
        if not (self.weight or self.bias):
            raise InputError("Scale", "a weight, a bias or both", "neither")
        check_finite("Scale: initial", self.initial)
        if self.shape is not None:
            if not np.iterable(self.shape):
                raise InputError("Scale: shape", "a tuple of lengths", repr(self.shape))
            object.__setattr__(self, "shape", tuple(whole_number("Scale: shape", n, 1) for n in self.shape))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        shape = self._shape(input_shape)
        pairs = zip(reversed(shape), reversed(input_shape), strict=False)
        if len(shape) > len(input_shape) or any(own not in (1, n) for own, n in pairs):
            raise InputError(f"{name}: input", f"a shape that {shape} broadcasts to", input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight and bias, or the only one that there is."""
        shape, constant = self._shape(input_shape), not self.learned
        weight = Parameter("weight", shape, initial=self.initial, statistic=constant)
        bias = Parameter("bias", shape, statistic=constant)
        return tuple(each for each, there in ((weight, self.weight), (bias, self.bias)) if there)

    def lower(self, site: Site) -> Lowered:
        """Return the scale with its buffers."""
        return _LoweredScale(self, site)

    def _shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:1], *(1 for _ in input_shape[1:])) if self.shape is None else self.shape


class _LoweredScale(Lowered):
    """The numbers have the axes of x and of the batch, with lengths of 1 where they are broadcast."""

    def __init__(self, scale: Scale, site: Site) -> None:
        names = [parameter.name for parameter in scale.parameters(site.input_shape)]
        shape = site.parameter(names[0]).shape
        self.shape = (*(1 for _ in site.input_shape[len(shape) :]), *shape)
        numbers = {name: site.parameter(name).reshape(*self.shape, 1) for name in names}
        self.weight, self.bias = numbers.get("weight"), numbers.get("bias")
        self.x = self.y = site.workspace.output((*site.input_shape, site.batch))
        if site.wants_gradients:
            self.learned = scale.learned
            self.gradients = {name: site.gradient(name) for name in names}
            self.spare = site.workspace.array(self.y.shape if scale.weight and scale.learned else (0,))
            # Sums are taken over the rows of a matrix first: over the trailing axes that have a length of 1.
            trailing = next((axis for axis, n in enumerate(reversed(self.shape)) if n > 1), len(self.shape))
            self.kept = site.input_shape[: len(self.shape) - trailing]
            self.rows = site.workspace.array((math.prod(self.kept),))
            self.ones = site.workspace.ones(self.y.size // self.rows.size)
            self.others = tuple(axis for axis in range(len(self.kept)) if self.shape[axis] == 1)

    def forward(self, x: Array) -> Array:
        """Y = weight X + bias."""
        self.x = x
        if self.weight is not None:
            x = np.multiply(x, self.weight, out=self.y)
        if self.bias is not None:
            np.add(x, self.bias, out=self.y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = weight dY; dweight is the sum of X dY, dbias that of dY, over all that share a number; 0 if constant."""
        for name, gradient in self.gradients.items():
            if not self.learned:
                gradient.fill(0)
            elif name == "bias":
                gradient.reshape(-1)[...] = self._sum("dbias", dy)
            else:
                gradient.reshape(-1)[...] = self._sum("dweight", np.multiply(self.x, dy, out=self.spare))
        return dy if self.weight is None else np.multiply(dy, self.weight, out=dy)

    def _sum(self, role: Role, terms: Array) -> Array:
        row_sums(role, terms.reshape(self.rows.size, -1), self.ones, out=self.rows)
        sums: Array = self.rows.reshape(self.kept).sum(axis=self.others)
        return sums.reshape(-1)
