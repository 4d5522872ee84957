"""What becomes of each operator."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from lowered_cnn.arrays import InputError
from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.layout import View
from lowered_cnn.interop.onnx.nodes import TRANSLATIONS, Node
from lowered_cnn.interop.onnx.operators.axes import (
    dense,
    gemm,
    layer_norm,
    normalization,
    reduce,
    softmax,
)
from lowered_cnn.interop.onnx.operators.joining import (
    absolute,
    arithmetic,
    cast,
    concat,
    limit,
    mean,
    negative,
    power,
    scale,
    standardized,
)
from lowered_cnn.interop.onnx.operators.operands import Operand
from lowered_cnn.interop.onnx.operators.parts import gather, gather_nd, pad, sliced, split
from lowered_cnn.interop.onnx.operators.reshaping import (
    depth_to_space,
    expand,
    flatten,
    reshape,
    space_to_depth,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from lowered_cnn.interop.onnx.operators.single import (
    elementwise,
    global_pool,
    layer,
    negated_prelu,
    prelu,
    stochastic_depth,
)

Structure: TypeAlias = Callable[[Assembly, Node, Sequence[Operand]], list[View]]

STRUCTURES: Mapping[str, Structure] = {
    "Abs": absolute,
    "Add": arithmetic,
    "Cast": cast,
    "CastLike": cast,
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Div": arithmetic,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherND": gather_nd,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "LayerNormalization": layer_norm,
    "LogSoftmax": softmax,
    "MatMul": dense,
    "Max": limit,
    "Mean": mean,
    "Min": limit,
    "Mul": arithmetic,
    "Neg": negative,
    "NegatedPRelu": negated_prelu,
    "Normalization": normalization,
    "PRelu": prelu,
    "Pad": pad,
    "Pow": power,
    "ReduceMax": reduce,
    "ReduceMean": reduce,
    "ReduceSum": reduce,
    "Reshape": reshape,
    "Scale": scale,
    "Slice": sliced,
    "Softmax": softmax,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Standardize": standardized,
    "StochasticDepth": stochastic_depth,
    "Squeeze": squeeze,
    "Sub": arithmetic,
    "Sum": arithmetic,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    **dict.fromkeys(
        ["Celu", "Clip", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid",
         "Swish", "Tanh"],
        elementwise,
    ),
}  # fmt: skip
"""What becomes of each operator that knows more than ONNX's own layout; all others of TRANSLATIONS do not."""


def structure(node: Node) -> Structure:
    """Return what adds a node to the network; raises InputError, which names the node, if nothing does."""
    if node.operator not in STRUCTURES and node.operator not in TRANSLATIONS:
        raise InputError(f"node {node.name}", "an operator that is read", node.operator)
    return STRUCTURES.get(node.operator, layer)
