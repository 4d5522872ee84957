"""The fully connected layer: one matrix product with examples as columns."""

from dataclasses import dataclass
from typing import ClassVar

from lowered_cnn.arrays import Array, InputError, Shape, check_flag, whole_number
from lowered_cnn.gemm import affine, multiply_a_bt, multiply_at_b, row_sums
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.parameters import Parameter, he_deviation


@dataclass(frozen=True)
class Dense(Layer):
    """Z = weight A + bias (S8): input (features), output (units), weight (units, features), bias (units)."""

    units: int
    bias: bool = True

    kind: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        whole_number("Dense: units", self.units, 1)
        check_flag("Dense: bias", self.bias)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (units,)."""
        if len(input_shape) != 1:
            raise InputError(f"{name}: input", "shape (features), as Flatten() gives", input_shape)
        return (self.units,)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight (units, features), and bias (units) if there is one."""
        weight = Parameter("weight", (self.units, input_shape[0]), deviation=he_deviation(input_shape[0]), decays=True)
        return (weight, Parameter("bias", (self.units,))) if self.bias else (weight,)

    def lower(self, site: Site) -> Lowered:
        """Return the layer as three matrix products."""
        return _LoweredDense(self, site)


class _LoweredDense(Lowered):
    def __init__(self, dense: Dense, site: Site) -> None:
        new = site.workspace.array
        self.weight = site.parameter("weight")
        self.bias = site.parameter("bias")[:, None] if dense.bias else None
        self.y = site.workspace.output((dense.units, site.batch))
        self.x = self.y
        self.dx = new((*site.input_shape, site.batch)) if site.wants_dx else None
        if site.wants_gradients:
            self.dweight = site.gradient("weight")
            self.dbias = site.gradient("bias") if dense.bias else None
            self.ones = site.workspace.ones(site.batch)

    def forward(self, x: Array) -> Array:
        """Z = W A + b."""
        self.x = x
        affine(self.weight, x, self.bias, out=self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """dW = dZ A^T, db = dZ 1, dA = W^T dZ."""
        multiply_a_bt("dweight", dy, self.x, out=self.dweight)
        if self.dbias is not None:
            row_sums("dbias", dy, self.ones, out=self.dbias)
        if self.dx is not None:
            multiply_at_b("dx", self.weight, dy, out=self.dx)
        return self.dx
