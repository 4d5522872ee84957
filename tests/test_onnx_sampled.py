"""Networks drawn at random go to ONNX and back, and nodes come from there: ONNX Runtime gets our outputs."""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_oracle import graph, run_model
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, RuntimeException
from running import normal

from lowered_cnn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    InputError,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    Network,
    Pad,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from lowered_cnn.arrays import Shape
from lowered_cnn.interop.onnx import from_onnx, to_onnx

CONVOLUTIONS: tuple[Callable[..., Layer], ...] = (Conv1D, Conv2D, Conv3D)
TRANSPOSED: tuple[Callable[..., Layer], ...] = (ConvTranspose1D, ConvTranspose2D, ConvTranspose3D)

MOST = 600
"""Activations of more numbers are not drawn: the networks are to be small."""


class Draw:
    """Draws networks of all layers that can be exported; a seed is a network."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def network(self) -> Network:
        """Draw a network over signals, images, volumes or features, that ends in maps or features."""
        rank = self.random.choice([0, 1, 2, 2, 2, 3])
        size = [self.random.randint(1, (0, 14, 9, 5)[rank]) for _ in range(rank)]
        shape = (self.random.randint(1, 5), *size)
        model = self.stack(shape, self.random.randint(1, 6), depth=2)
        dtype = self.random.choice([np.float32, np.float64])
        network = Network(model, shape, dtype=dtype)
        network.parameters.vector += np.abs(0.1 * normal(network.parameters.vector.size)).astype(dtype)
        return network

    def stack(self, shape: Shape, length: int, depth: int) -> Sequential:
        layers: list[Layer] = []
        while len(layers) < length:
            try:
                layer = self.layer(shape, depth)
                output = layer.output_shape(shape, "drawn")
            except InputError:  # it does not fit: another one
                continue
            if math.prod(output) <= MOST and can_be_exported(layer, shape):
                layers.append(layer)
                shape = output
        return Sequential(*layers)

    def layer(self, shape: Shape, depth: int) -> Layer:
        kinds = [self.pointwise, self.weighted, self.weighted]
        kinds += [self.maximum, self.mean, self.around, self.reduction] if len(shape) > 1 else []
        kinds += [self.residual, self.concatenation] if depth else []
        return self.random.choice(kinds)(shape, depth)

    def pointwise(self, shape: Shape, depth: int) -> Layer:
        choices: list[Layer] = [
            ReLU(), LeakyReLU(0.3), ELU(0.7), Sigmoid(), Tanh(), SiLU(), GELU(), GELU(approximate=True), Softmax(),
            Dropout(0.3), BatchNorm(0.3, 1e-3), BatchNorm(),
        ]  # fmt: skip
        return self.random.choice(choices + [LayerNorm(0.01)] * (len(shape) == 1))

    def weighted(self, shape: Shape, depth: int, window: dict[str, Any] | None = None) -> Layer:
        rank, bias = len(shape) - 1, self.random.random() < 0.7
        if rank == 0:
            return Dense(self.random.randint(1, 5), bias)
        groups = self.random.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0])
        options: dict[str, Any] = {"groups": groups, "bias": bias, **(window or self.window(rank))}
        filters = groups * self.random.randint(1, 3)
        if window is None and self.random.random() < 0.3:
            more = [self.random.choice([0, 0, 1]) for _ in range(rank)]
            return TRANSPOSED[rank - 1](filters, **options, output_padding=more)
        return CONVOLUTIONS[rank - 1](filters, **options)

    def window(self, rank: int) -> dict[str, Any]:
        """Draw where a window stands."""
        a = self.random.randint
        pads = [[a(0, 2), a(0, 2)] for _ in range(rank)]
        return {
            "kernel": self.random.choice([a(1, 3), [a(1, 4) for _ in range(rank)]]),
            "stride": self.random.choice([1, a(1, 3), [a(1, 4) for _ in range(rank)]]),
            "padding": self.random.choice(["same", "valid", a(0, 2), pads, pads]),
            "dilation": self.random.choice([1, 1, a(1, 3), [a(1, 3) for _ in range(rank)]]),
        }

    def maximum(self, shape: Shape, depth: int, window: dict[str, Any] | None = None) -> Layer:
        return MaxPool(**(window or self.window(len(shape) - 1)), ceil_mode=self.random.random() < 0.5)

    def mean(self, shape: Shape, depth: int, window: dict[str, Any] | None = None) -> Layer:
        options = dict(window or self.window(len(shape) - 1))
        include = self.random.random() < 0.5
        return AvgPool(**options, ceil_mode=self.random.random() < 0.5, count_include_pad=include)

    def around(self, shape: Shape, depth: int) -> Layer:
        pads = [[self.random.randint(0, 2), self.random.randint(0, 2)] for _ in shape[1:]]
        return Pad(pads, self.random.choice([0.0, 0.5]))

    def reduction(self, shape: Shape, depth: int) -> Layer:
        return self.random.choice([Flatten(), GlobalAvgPool(), GlobalMaxPool()])

    def residual(self, shape: Shape, depth: int) -> Layer:
        """Draw a body that keeps the shape, or two branches with one window and as many filters."""
        if self.random.random() < 0.5:
            inner = self.stack(shape, self.random.randint(0, 2), depth - 1)
            return Residual(inner, self.pointwise(shape, depth)) if self.random.random() < 0.3 else Residual(inner)
        rank, filters = len(shape) - 1, self.random.randint(1, 4)
        if rank == 0:
            return Residual(Sequential(Dense(filters), Tanh()), Dense(filters))
        window = self.window(rank)
        body, shortcut = (CONVOLUTIONS[rank - 1](filters, **window) for _ in range(2))
        return Residual(Sequential(body, self.pointwise((filters, *shape[1:]), depth)), shortcut)

    def concatenation(self, shape: Shape, depth: int) -> Layer:
        """Draw branches of one window each, the same for all, or without windows."""
        count = self.random.randint(1, 3)
        if len(shape) == 1 or self.random.random() < 0.3:
            return Concatenate(*(self.stack(shape, self.random.randint(0, 2), depth - 1) for _ in range(count)))
        window = self.window(len(shape) - 1)
        firsts = [
            self.random.choice([self.weighted, self.maximum, self.mean])(shape, depth, window) for _ in range(count)
        ]
        return Concatenate(*(Sequential(first, *[ReLU()] * self.random.randint(0, 1)) for first in firsts))


def can_be_exported(layer: Layer, shape: Shape) -> bool:
    """Tell whether each window sees a number, and no padding that does not count is as wide as the kernel."""
    if isinstance(layer, Concatenate):
        firsts = [branch.layers[0] for branch in layer.layers if isinstance(branch, Sequential) and branch.layers]
        return all(can_be_exported(first, shape) for first in firsts)
    if not isinstance(layer, MaxPool | AvgPool):
        return True
    sweep = layer.sweep(shape, "drawn")
    window = sweep.window
    wide = any(max(p) >= k for p, k in zip(sweep.pads, window.kernel, strict=True))
    if wide and isinstance(layer, AvgPool) and (not layer.count_include_pad or layer.ceil_mode):
        return False
    axes = zip(sweep.size, sweep.output, sweep.pads, window.kernel, window.stride, window.dilation, strict=True)
    return all(any(0 <= i * s + a * d - p[0] < h for a in range(k)) for h, o, p, k, s, d in axes for i in range(o))


def check(seed: int) -> None:
    """Export the network of a seed, run the model in ONNX Runtime (in float32), and read it back."""
    network = Draw(seed).network()
    model = to_onnx(network)
    images = normal(3, *network.input_shape, seed=seed).astype(network.parameters.vector.dtype)
    outputs = network.predict(images)

    single = Network(network.model, network.input_shape)
    single.parameters.vector[...] = network.parameters.vector
    expected = run_model(to_onnx(single), images.astype(np.float32))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * np.abs(expected).max() + 1e-6)

    again = from_onnx(model)
    assert again.parameters.vector.dtype == network.parameters.vector.dtype
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    same = again.predict(images)
    np.testing.assert_allclose(same, outputs, rtol=0, atol=10 * np.finfo(outputs.dtype).eps * np.abs(outputs).max())


@pytest.mark.parametrize("seed", range(80))
def test_onnx_runtime_agrees_and_a_round_trip_changes_nothing(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(80, 480, 100))
def test_it_does_so_for_more_networks(start: int) -> None:
    for seed in range(start, start + 100):
        check(seed)


def drawn_node(draw: random.Random) -> tuple[Any, list[int]]:
    """Draw a model of one node with a window, as others may write it, and the input's size."""
    rank = draw.randint(1, 3)
    size = [draw.randint(1, (14, 9, 5)[rank - 1]) for _ in range(rank)]
    kind = draw.choice(["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
    kernel = [draw.randint(1, 4) for _ in range(rank)]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if draw.random() < 0.3:
        # Here ONNX Runtime has rules of its own where there is dilation, or a stride beyond the kernel.
        attributes |= {"auto_pad": draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])}
        attributes |= {"strides": [draw.randint(1, k) for k in kernel]}
    else:
        # A pool has either: where windows lie in the padding alone, the two have results of their own.
        dilated = draw.random() < 0.4
        padded = "Conv" in kind or not dilated
        attributes |= {"strides": [draw.randint(1, 4) for _ in range(rank)]}
        attributes |= {"pads": [draw.randint(0, 2) for _ in range(2 * rank)]} if padded else {}
        attributes |= {"dilations": [draw.randint(1, 3) for _ in range(rank)]} if dilated else {}
    if "Pool" in kind:
        attributes |= {"ceil_mode": draw.randint(0, 1)}
    if kind == "AveragePool":
        attributes |= {"count_include_pad": draw.randint(0, 1)}
    weights = {} if "Pool" in kind else {"w": normal(2, 2, *kernel).astype(np.float32)}
    node = helper.make_node(kind, ["x", *weights], ["y"], **attributes)
    return graph([node], weights, ["batch", 2, *size]), size


def test_windows_are_read_as_onnx_runtime_reads_them() -> None:
    draw, compared = random.Random(0), 0
    for _ in range(600):
        model, size = drawn_node(draw)
        images = normal(2, 2, *size).astype(np.float32)
        with suppress(InputError, InvalidGraph, RuntimeException, Fail):  # what one of the two refuses
            network, expected = from_onnx(model), run_model(model, images)
            outputs = network.predict(images)
            np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5, err_msg=str(model.graph.node))
            compared += 1
    assert compared > 200
