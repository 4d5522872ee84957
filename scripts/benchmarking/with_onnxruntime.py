"""ONNX Runtime: inference on a graph that is built by hand."""

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarking.framework import Floats, Framework, Setting
from benchmarking.layers import Placed, placed, sides, unknown
from benchmarking.timing import Timed
from lowered_cnn import Conv2D, Dense, Flatten, MaxPool, Network, ReLU

OPSET, IR_VERSION = 19, 9


class Measured(Framework):
    """A session with as many threads as cores."""

    def __init__(self, network: Network, setting: Setting) -> None:
        super().__init__(network, setting)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setting.cores
        self.session = onnxruntime.InferenceSession(model(network), options, providers=["CPUExecutionProvider"])

    def inference(self) -> Timed:
        """Return the session's outputs for images in memory."""
        images = self.images(1)[0]
        return Timed(lambda: self.predict(images))

    def predict(self, images: Floats) -> Floats:
        """Return the session's outputs."""
        outputs: Floats = self.session.run(None, {"x": images})[0]
        return outputs


def model(network: Network) -> bytes:
    """Return the network as an ONNX model, with the same weights."""
    layers = list(placed(network))
    inputs = ["x", *(place.name for place in layers)]
    graph = helper.make_graph(
        [_node(place, x) for place, x in zip(layers, inputs, strict=False)],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *network.input_shape])],
        [helper.make_tensor_value_info(inputs[-1], TensorProto.FLOAT, ["N", *network.output_shape])],
        [
            numpy_helper.from_array(np.ascontiguousarray(values), f"{place.name}.{name}")
            for place in layers
            for name, values in place.weights.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    serialized: bytes = made.SerializeToString()
    return serialized


def _node(place: Placed, x: str) -> Any:
    inputs = [x, *(f"{place.name}.{name}" for name in place.weights)]
    kind, attributes = _operator(place)
    return helper.make_node(kind, inputs, [place.name], **attributes)


def _operator(place: Placed) -> tuple[str, dict[str, Any]]:
    match place.layer:
        case Conv2D(groups=groups) as conv:
            sweep = conv.sweep(place.input_shape, place.name)
            window = sweep.window
            return "Conv", {
                "kernel_shape": window.kernel,
                "strides": window.stride,
                "pads": sides(sweep) * 2,
                "dilations": window.dilation,
                "group": groups,
            }
        case Dense():
            return "Gemm", {"transB": 1}
        case MaxPool() as pool:
            sweep = pool.sweep(place.input_shape, place.name)
            window = sweep.window
            return "MaxPool", {"kernel_shape": window.kernel, "strides": window.stride, "pads": sides(sweep) * 2}
        case ReLU():
            return "Relu", {}
        case Flatten():
            return "Flatten", {}
    raise unknown(place)
