"""Networks drawn at random go to ONNX and back, and nodes come from there: ONNX Runtime gets our outputs."""

import random
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_oracle import graph, run_model
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, RuntimeException
from running import disturbed, normal

from lowered_cnn import InputError, Network, Sequential
from lowered_cnn.interop.onnx import from_onnx, to_onnx
from lowered_cnn.verify.sampled import draw


def drawn(seed: int) -> Network:
    """Return the first layers of the network of a seed, so that it ends in maps or features, in either precision."""
    specimen = draw(seed)
    layers = specimen.model.layers
    dtype = (np.float32, np.float64)[seed % 2]
    return disturbed(Sequential(*layers[: 1 + seed % len(layers)]), specimen.input_shape, dtype)


def check(seed: int) -> bool:
    """Export a network, run the model in ONNX Runtime (in float32), and read it back; False if ONNX lacks a layer."""
    network = drawn(seed)
    try:
        model = to_onnx(network)
    except InputError:
        return False
    images = normal(3, *network.input_shape, seed=seed).astype(network.parameters.vector.dtype)
    outputs = network.predict(images)

    single = Network(network.model, network.input_shape)
    single.parameters.vector = network.parameters.vector
    expected = run_model(to_onnx(single), images.astype(np.float32))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * np.abs(expected).max() + 1e-6)

    try:
        again = from_onnx(model)
    except InputError:  # some layers are written, but not read yet
        return True
    assert again.parameters.vector.dtype == network.parameters.vector.dtype
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    same = again.predict(images)
    np.testing.assert_allclose(same, outputs, rtol=0, atol=10 * np.finfo(outputs.dtype).eps * np.abs(outputs).max())
    return True


def test_onnx_runtime_agrees_and_a_round_trip_changes_nothing() -> None:
    assert sum(map(check, range(80))) > 50


@pytest.mark.slow
@pytest.mark.parametrize("start", range(80, 480, 100))
def test_it_does_so_for_more_networks(start: int) -> None:
    assert sum(map(check, range(start, start + 100))) > 60


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
    generator, compared = random.Random(0), 0
    for _ in range(600):
        model, size = drawn_node(generator)
        images = normal(2, 2, *size).astype(np.float32)
        with suppress(InputError, InvalidGraph, RuntimeException, Fail):  # what one of the two refuses
            network, expected = from_onnx(model), run_model(model, images)
            outputs = network.predict(images)
            np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5, err_msg=str(model.graph.node))
            compared += 1
    assert compared > 200
