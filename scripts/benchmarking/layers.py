"""The layers of a network in order, with their weights as each framework stores them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from lowered_cnn import Conv2D, Dense, Flatten, Layer, MaxPool, Network, ReLU, Sequential
from lowered_cnn.arrays import Array, InputError, Shape
from lowered_cnn.window import Sweep


@dataclass(frozen=True)
class Placed:
    """A layer in its place: its name, its input shape (C, H, W) or (features), and its parameters."""

    name: str
    layer: Layer
    input_shape: Shape
    weights: dict[str, Array] = field(default_factory=dict)
    flattened: Shape | None = None
    """For the first dense layer: the shape (C, H, W) before it was flattened."""

    @property
    def kernel(self) -> Array:
        """The weight for channels last: (KH, KW, C, K) for a convolution, (in, out) for a dense layer.

        With channels last, the features of a flattened image are in a different order, too.
        """
        weight = self.weights["weight"]
        if isinstance(self.layer, Conv2D):
            return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        if self.flattened is not None:
            weight = np.moveaxis(weight.reshape(-1, *self.flattened), 1, -1).reshape(weight.shape)
        return np.ascontiguousarray(weight.T)

    @property
    def bias(self) -> Array | None:
        """The bias, if there is one."""
        return self.weights.get("bias")


def placed(network: Network) -> Iterator[Placed]:
    """Yield the layers of a network in order."""
    flattened = None
    assert isinstance(network.model, Sequential)
    for name, layer, shape in network.model.steps(network.input_shape):
        own = {p.name: network.parameters[f"{name}.{p.name}"] for p in layer.parameters(shape)}
        yield Placed(name, layer, shape, own, flattened if isinstance(layer, Dense) else None)
        if isinstance(layer, Flatten):
            flattened = shape
        elif not isinstance(layer, ReLU):
            flattened = None


def sides(sweep: Sweep) -> tuple[int, ...]:
    """Return the padding, one number per axis; raises InputError if it differs before and after an axis."""
    if any(before != after for before, after in sweep.pads):
        raise InputError("padding", "the same before and after", sweep.pads)
    return tuple(before for before, _ in sweep.pads)


def named_padding(sweep: Sweep) -> str:
    """Return the padding as "same" or "valid"; raises InputError if it is neither."""
    if not any(map(any, sweep.pads)):
        return "valid"
    if replace(sweep.window, padding=None).over(sweep.size).pads != sweep.pads:
        raise InputError("padding", "same or valid", sweep.pads)
    return "same"


def pool_size(place: Placed) -> tuple[int, ...]:
    """Return the kernel of a pooling layer; raises InputError unless its stride equals it and there is no padding."""
    assert isinstance(place.layer, MaxPool)
    sweep = place.layer.sweep(place.input_shape, place.name)
    if sweep.window.stride != sweep.window.kernel or any(map(any, sweep.pads)):
        raise InputError(place.name, "a pool without padding, with a stride equal to its kernel", place.layer)
    return sweep.window.kernel


def unknown(place: Placed) -> InputError:
    """Return the error for a layer that cannot be translated to a framework."""
    return InputError(place.name, "Conv2D, ReLU, MaxPool, Flatten or Dense", place.layer)
