"""The fully connected layer: one matrix product with examples, and positions if there are any, as columns."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_flag, whole_number
from lowered_cnn.gemm import affine, multiply_a_bt, multiply_at_b, row_sums
from lowered_cnn.layers.axes import axis_of, check_axis
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.parameters import Parameter, he_deviation


@dataclass(frozen=True)
class Dense(Layer):
    """Z = weight A + bias (S8): input (features), output (units), weight (units, features), bias (units).

    With an `axis`, counted without the batch, the input has any shape, and the features along that axis become units at
    each position: Dense(units, axis=-1) for tokens (T, features).
    """

    units: int
    bias: bool = True
    axis: int | None = None

    kind: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        whole_number("Dense: units", self.units, 1)
        check_flag("Dense: bias", self.bias)
        if self.axis is not None:
            check_axis("Dense", self.axis)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (units), or the input's shape with units in place of the features."""
        if self.axis is None and len(input_shape) != 1:
            raise InputError(f"{name}: input", "shape (features), as Flatten() gives", input_shape)
        axis = axis_of(self.axis or 0, input_shape, name)
        return (*input_shape[:axis], self.units, *input_shape[axis + 1 :])

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight (units, features), and bias (units) if there is one."""
        features = input_shape[self.axis or 0]
        weight = Parameter("weight", (self.units, features), deviation=he_deviation(features), decays=True)
        return (weight, Parameter("bias", (self.units,))) if self.bias else (weight,)

    def lower(self, site: Site) -> Lowered:
        """Return the layer as three matrix products."""
        return _LoweredDense(self, site)


class _LoweredDense(Lowered):
    """The matrices: x and dx (features, M), y and dy (units, M), with M = positions times examples."""

    def __init__(self, dense: Dense, site: Site) -> None:
        axis = axis_of(dense.axis or 0, site.input_shape, site.name)
        self.weight = site.parameter("weight")
        self.bias = site.parameter("bias")[:, None] if dense.bias else None
        self.y = site.workspace.output((*dense.output_shape(site.input_shape, site.name), site.batch))
        self.inputs, self.outputs = (
            _Matrix((*shape, site.batch), axis, site) for shape in (site.input_shape, self.y.shape[:-1])
        )
        self.x = self.y
        self.dx = site.workspace.array((*site.input_shape, site.batch)) if site.wants_dx else None
        if site.wants_gradients:
            self.dweight = site.gradient("weight")
            self.dbias = site.gradient("bias") if dense.bias else None
            self.ones = site.workspace.ones(self.y.size // dense.units)

    def forward(self, x: Array) -> Array:
        """Z = W A + b."""
        self.x = self.inputs.read(x)
        affine(self.weight, self.x, self.bias, out=self.outputs.below(self.y))
        return self.outputs.written(self.y)

    def backward(self, dy: Array) -> Array | None:
        """dW = dZ A^T, db = dZ 1, dA = W^T dZ."""
        dy = self.outputs.read(dy)
        multiply_a_bt("dweight", dy, self.x, out=self.dweight)
        if self.dbias is not None:
            row_sums("dbias", dy, self.ones, out=self.dbias)
        if self.dx is None:
            return None
        multiply_at_b("dx", self.weight, dy, out=self.inputs.below(self.dx))
        return self.inputs.written(self.dx)


class _Matrix:
    """Activations as a matrix with one axis as its rows: a view, or a copy in a buffer if other axes come before it."""

    def __init__(self, shape: Shape, axis: int, site: Site) -> None:
        self.parts = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        outer, rows, inner = self.parts
        self.shape = (rows, outer * inner)
        self.buffer = None if outer == 1 else site.workspace.array(self.shape)

    def read(self, activation: Array) -> Array:
        """Return an activation as a matrix."""
        if self.buffer is None:
            return activation.reshape(self.shape)
        np.copyto(self._in_place(self.buffer), activation.reshape(self.parts))
        return self.buffer

    def below(self, activation: Array) -> Array:
        """Return the matrix to write an activation into; what was read before is lost."""
        return activation.reshape(self.shape) if self.buffer is None else self.buffer

    def written(self, activation: Array) -> Array:
        """Return the activation, after its matrix has been written."""
        if self.buffer is not None:
            np.copyto(activation.reshape(self.parts), self._in_place(self.buffer))
        return activation

    def _in_place(self, matrix: Array) -> Array:
        outer, rows, inner = self.parts
        return matrix.reshape(rows, outer, inner).swapaxes(0, 1)
