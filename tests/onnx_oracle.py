"""ONNX Runtime as an independent oracle: one node, run in float32."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper

from lowered_cnn.arrays import Array


def run_node(kind: str, *inputs: Array, **attributes: Any) -> npt.NDArray[np.float32]:
    """Run one ONNX operator on inputs (N, C, *size), weights and biases; absent ones are not given."""
    names = [f"input{i}" for i in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], **attributes)],
        "one node",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
            for name, array in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: np.ascontiguousarray(array, np.float32) for name, array in zip(names, inputs, strict=True)}
    y: npt.NDArray[np.float32] = session.run(None, feeds)[0]
    return y
