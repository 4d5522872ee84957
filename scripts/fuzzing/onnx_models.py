"""ONNX models, whose protobuf is changed field by field; some that are read are compared with ONNX Runtime."""

import math
import zlib
from collections.abc import Iterator, MutableSequence, Sequence
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fuzzing.mutations import NUMBERS
from fuzzing.target import Mutation, Target
from lowered_cnn import Graph, Network
from lowered_cnn.interop.onnx import from_onnx, to_onnx
from lowered_cnn.interop.onnx.folding import FOLDS
from lowered_cnn.interop.onnx.nodes import TRANSLATIONS
from lowered_cnn.interop.onnx.operators import STRUCTURES
from lowered_cnn.verify.sampled import draw as drawn

SMALL = 4000
"""Bytes of an exported seed, at most."""

COMPARED = 8
"""One model in so many of those that are read is run by ONNX Runtime too."""

WORDS: Sequence[str] = (
    *TRANSLATIONS, *STRUCTURES, *FOLDS, "Identity", "Constant", "If", "x", "y", "w", "", "ai.onnx", "com.example",
    "kernel_shape", "strides", "pads", "dilations", "group", "auto_pad", "SAME_UPPER", "SAME_LOWER", "VALID", "axis",
    "alpha", "beta", "transA", "transB", "epsilon", "momentum", "ceil_mode", "count_include_pad", "output_shape",
    "output_padding", "mode", "value", "axes", "keepdims", "approximate", "ratio", "training_mode", "location", "input",
    "spatial", "shape", "allowzero", "value_floats", "value_int", "storage_order", "broadcast", "perm", "starts",
    "ends", "split", "num_outputs", "blocksize", "CRD", "to", "min", "max", "gamma", "start", "end", "reflect",
    "edge", "wrap",
)  # fmt: skip

NODES: Sequence[tuple[str, dict[str, Any], Sequence[Any]]] = (
    ("Conv", {"pads": [1, 0, 0, 1], "strides": [1, 2]}, [np.ones((2, 2, 2, 2)), np.ones(2)]),
    ("Conv", {"auto_pad": "SAME_LOWER", "dilations": [2, 1], "group": 2}, [np.ones((2, 1, 2, 3))]),
    ("ConvTranspose", {"strides": [2, 1], "output_padding": [1, 0]}, [np.ones((2, 3, 2, 2)), np.ones(3)]),
    ("ConvTranspose", {"output_shape": [8, 8], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, [np.ones((2, 1, 3, 3))]),
    ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 1]}, []),
    ("AveragePool", {"kernel_shape": [3, 2], "count_include_pad": 1, "pads": [1, 1, 0, 0]}, []),
    ("BatchNormalization", {"epsilon": 1e-3, "momentum": 0.8}, [np.ones(2)] * 4),
    ("Pad", {"mode": "constant"}, [np.array([0, 0, 1, 1, 0, 0, 0, 2]), np.float64(0.5)]),
    ("ReduceMean", {"keepdims": 0}, [np.array([2, 3])]),
    ("Reshape", {}, [np.array([0, -1])]),
    ("Transpose", {"perm": [0, 2, 3, 1]}, []),
    ("Slice", {}, [np.array([1]), np.array([9]), np.array([2]), np.array([2])]),
    ("Gather", {"axis": 1}, [np.array([1, 0])]),
    ("Unsqueeze", {}, [np.array([2])]),
    ("Expand", {}, [np.array([1, 2, 4, 4])]),
    ("Tile", {}, [np.array([1, 2, 1, 2])]),
    ("Add", {}, [np.ones((2, 1, 1))]),
    ("Mul", {}, [np.ones(4)]),
    ("Clip", {}, [np.float64(0), np.float64(6)]),
    ("PRelu", {}, [np.ones((2, 1, 1))]),
    ("MatMul", {}, [np.ones((4, 3))]),
    ("ReduceSum", {"keepdims": 1}, [np.array([1])]),
    ("LayerNormalization", {"axis": -1}, [np.ones(4), np.ones(4)]),
    ("InstanceNormalization", {}, [np.ones(2), np.ones(2)]),
    ("Resize", {"mode": "nearest"}, [np.zeros(0), np.array([1.0, 1.0, 2.0, 1.5])]),
    ("SpaceToDepth", {"blocksize": 2}, []),
    ("LRN", {"size": 3}, []),
    *((kind, {}, []) for kind in ("Abs", "HardSwish", "Selu", "Squeeze", "LogSoftmax",
                                  "Relu", "Elu", "LeakyRelu", "Gelu", "Sigmoid", "Tanh", "Softmax", "Flatten",
                                  "GlobalMaxPool", "GlobalAveragePool", "Dropout", "Identity")),
)  # fmt: skip


class OnnxModel(Target):
    """Models in a file."""

    def seeds(self) -> Iterator[bytes]:
        """Yield models of one node, models of a few, and those that we export."""
        for kind, attributes, constants in NODES:
            yield model_of([(kind, attributes, constants)])
        gemm = ("Gemm", {"transB": 1, "alpha": 0.5}, [np.ones((3, 32)), np.ones(3)])
        yield model_of([("Flatten", {}, []), gemm])
        yield model_of([("Flatten", {}, []), ("MatMul", {}, [np.ones((32, 3))]), ("Add", {}, [np.ones(3)])])
        for seed in range(80):
            drawing = drawn(seed)
            try:
                content = to_onnx(Network(drawing.model, drawing.input_shape)).SerializeToString()
            except ValueError:  # a layer that ONNX lacks
                continue
            if len(content) < SMALL:
                yield content

    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Change bytes, or one to three fields anywhere in the message."""
        if draw.random() < 0.2:
            return plain(content)
        try:
            model = onnx.ModelProto.FromString(content)
        except Exception:  # not a message
            return plain(content)
        names = [name for node in model.graph.node for name in (*node.input, *node.output)]
        for _ in range(draw.choice([1, 1, 2, 3])):
            message_changed(model, [*names, *WORDS], plain, draw)
        whole: bytes = model.SerializeToString()
        return whole

    def read(self, content: bytes) -> object:
        """Read from a file."""
        self.path.write_bytes(content)
        return from_onnx(self.path)

    def verify(self, content: bytes, value: Any) -> None:
        """Compare the input shape; and the outputs of one model in `COMPARED` whose numbers are usual."""
        shapes = {**dict(shapes_of(value)), "": value.output_shape}
        sizes = [math.prod(shape) for shape in shapes.values()]
        model = onnx.ModelProto.FromString(content)
        constants = {tensor.name for tensor in model.graph.initializer}
        entries = [entry for entry in model.graph.input if entry.name not in constants]
        if len(entries) > 1 or len(model.graph.output) > 1:
            return
        [images] = entries
        shape = [length.dim_value for length in images.type.tensor_type.shape.dim]
        assert list(value.input_shape) == shape[1:], "another input shape"
        usual = bool((np.abs(value.parameters.vector) < 1e6).all())  # not NaN, which a ReLU may take for 0
        if zlib.crc32(content) % COMPARED == 0 and max(sizes) < 20_000 and usual:
            compare(model, value, images.name)


def shapes_of(network: Network) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield the name and shape of everything that a network computes."""
    if isinstance(network.model, Graph):
        yield from network.model.shapes(network.input_shape).items()
    else:
        yield from ((name, shape) for name, _, shape in network.model.steps(network.input_shape))


def model_of(nodes: Sequence[tuple[str, dict[str, Any], Sequence[Any]]]) -> bytes:
    """Return a model of nodes in a row, for an input x (batch, 2, 4, 4)."""
    protos, constants, before = [], [], "x"
    for number, (kind, attributes, values) in enumerate(nodes):
        names = [f"c{number}{place}" for place in range(len(values))]
        after = "y" if number == len(nodes) - 1 else f"t{number}"
        protos.append(helper.make_node(kind, [before, *names], [after], **attributes))
        for name, entry in zip(names, values, strict=True):
            whole = np.asarray(entry)
            constants.append(numpy_helper.from_array(whole.astype("f4") if whole.dtype.kind == "f" else whole, name))
        before = after
    graph = helper.make_graph(
        protos,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()
    return content


def message_changed(root: Any, words: Sequence[str], plain: Mutation, draw: Random) -> None:
    """Change a field of a message, or of one in it: another value, one more, or one less."""
    message = root
    while True:
        inner = [
            entry
            for field, value in message.ListFields()
            if field.message_type
            for entry in (value if isinstance(value, MutableSequence) else [value])
        ]
        if not inner or draw.random() < 0.15:
            break
        message = draw.choice(inner)
    fields = [field for field, _ in message.ListFields()]
    field = draw.choice(fields if fields and draw.random() < 0.8 else list(message.DESCRIPTOR.fields))
    try:
        _change(message, field, words, plain, draw)
    except (ValueError, TypeError, OverflowError):  # a number that the field cannot hold
        message.ClearField(field.name)


def _change(message: Any, field: Any, words: Sequence[str], plain: Mutation, draw: Random) -> None:
    if draw.random() < 0.1:
        message.ClearField(field.name)
        return
    entries = getattr(message, field.name)
    if not isinstance(entries, MutableSequence):
        if field.message_type:
            entries.SetInParent()
        else:
            setattr(message, field.name, _value(field, entries, words, plain, draw))
        return
    place = draw.randrange(len(entries)) if len(entries) else 0
    action = draw.random()
    if action < 0.2 and len(entries):
        del entries[place]
    elif field.message_type:
        copy = getattr(message, field.name).add()
        copy.CopyFrom(entries[place])
        if action < 0.6 and len(entries) > 1:  # exchange two
            other = draw.randrange(len(entries) - 1)
            entries[place].CopyFrom(entries[other])
            entries[other].CopyFrom(copy)
            del entries[-1]
    elif action < 0.7 and len(entries):
        entries[place] = _value(field, entries[place], words, plain, draw)
    else:
        entries.append(_value(field, entries[place] if len(entries) else None, words, plain, draw))


def _value(field: Any, old: Any, words: Sequence[str], plain: Mutation, draw: Random) -> Any:
    """Return another value of a field that is no message."""
    if field.type == field.TYPE_STRING:
        return draw.choice(words)
    if field.type == field.TYPE_BYTES:
        return draw.choice(words).encode() if draw.random() < 0.3 else plain(old or b"")
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return float(draw.choice(NUMBERS))
    if draw.random() < 0.6:
        return int(old or 0) + draw.choice([-2, -1, 1, 1, 2])
    return int(draw.choice([number for number in NUMBERS if isinstance(number, int)]))


def compare(model: Any, network: Network, name: str) -> None:
    """Raise AssertionError unless ONNX Runtime, if it reads the model, has the same outputs where they are finite."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    dtype = network.parameters.vector.dtype
    images = np.random.default_rng(0).standard_normal((2, *network.input_shape)).astype(dtype)
    try:
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"], enable_fallback=0)
        [theirs] = session.run(None, {name: images})
    except Exception:  # it has errors of many kinds, and refuses more
        return
    with np.errstate(all="ignore"):
        ours = network.predict(images)
        assert ours.shape == theirs.shape, "outputs of another shape"
        largest = np.abs(theirs).max()
        if largest < 1e10:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * largest)
