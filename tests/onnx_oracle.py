"""ONNX Runtime as an independent oracle, in float32: models built here or by the exporter, and single nodes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lowered_cnn.arrays import Array


def graph(nodes: list[Any], constants: dict[str, Any], shape: list[Any] | None = None, outputs: str = "y") -> Any:
    """Build a model with the input x and these constants."""
    lengths: list[Any] = ["batch", 2, 4, 4] if shape is None else shape
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, lengths)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
            [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )


def run_node(kind: str, *inputs: Array, **attributes: Any) -> npt.NDArray[np.float32]:
    """Run one ONNX operator on inputs (N, C, *size), weights and biases; absent ones are not given."""
    names = [f"input{i}" for i in range(len(inputs))]
    alone = helper.make_graph(
        [helper.make_node(kind, names, ["y"], **attributes)],
        "one node",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
            for name, array in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(alone, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return run_outputs(model, dict(zip(names, inputs, strict=True)))[0]


def run_model(model: Any, images: Array) -> npt.NDArray[np.float32]:
    """Run a model of one input."""
    return run_outputs(model, {model.graph.input[0].name: images})[0]


def run_outputs(model: Any, feeds: dict[str, Array]) -> list[npt.NDArray[np.float32]]:
    """Run a model of any number of inputs and outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # The graph runs as it is written, and nothing is printed but what the tests raise.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: np.ascontiguousarray(array, np.float32) for name, array in feeds.items()}
    outputs: list[npt.NDArray[np.float32]] = session.run(None, feeds)
    return outputs
