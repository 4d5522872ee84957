"""Patterns: several nodes that older operator sets, or exporters, write for what is one operator today."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lowered_cnn.interop.onnx.folding import axes_of
from lowered_cnn.interop.onnx.nodes import Node, Values

NEAR = 1e-4
"""How far the constants of a pattern may be from what they mean, as exporters round them."""


class Patterns:
    """Replaces nodes by the operator that they complete, one after the other; those before it may be needed no more."""

    def __init__(self, known: Mapping[str, Values], *, is_ours: bool) -> None:
        self.known, self.is_ours = known, is_ours
        self.makers: dict[str, Node] = {}

    def replaced(self, nodes: Sequence[Node]) -> list[Node]:
        """Return the nodes, with the last one of each pattern replaced."""
        results = []
        for node in nodes:
            for match in MATCHES:
                node = match(self, node) or node
            self.makers.update(dict.fromkeys(node.outputs, node))
            results.append(node)
        return results

    def maker(self, name: str, *operators: str) -> Node | None:
        """Return the node that computes a tensor, if it has one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and node.operator in operators else None

    def number(self, name: str) -> float | None:
        """Return a constant of a single number."""
        values = self.known.get(name)
        return (
            float(values.reshape(()))
            if values is not None and values.size == 1 and values.dtype.kind in "fiu"
            else None
        )

    def scaled(self, node: Node | None) -> tuple[float, str] | None:
        """Return a factor and what it multiplies, if a node is such a product or quotient."""
        if node is None or len(node.inputs) != 2 or node.operator not in ("Mul", "Div"):
            return None
        for factor, other in (
            self._sides(node) if node.operator == "Mul" else [(self.number(node.inputs[1]), node.inputs[0])]
        ):
            if factor is not None and other not in self.known and (factor or node.operator == "Mul"):
                return (factor if node.operator == "Mul" else 1 / factor), other
        return None

    def shifted(self, node: Node | None) -> tuple[float, str] | None:
        """Return a number and what it is added to, if a node is such a sum."""
        if node is None or node.operator != "Add" or len(node.inputs) != 2:
            return None
        return next(((n, other) for n, other in self._sides(node) if n is not None and other not in self.known), None)

    def _sides(self, node: Node) -> Iterator[tuple[float | None, str]]:
        first, second = node.inputs
        yield self.number(first), second
        yield self.number(second), first

    def average(self, name: str) -> Node | None:
        """Return the mean that a tensor is, in whatever shape."""
        reshape = self.maker(name, "Reshape")
        return self.maker(reshape.inputs[0] if reshape else name, "ReduceMean")

    def limits(self, node: Node | None) -> tuple[float, float, str] | None:
        """Return the limits of a Clip and what it clips."""
        if node is None or node.operator != "Clip":
            return None
        ends = [self.number(name) if name else None for name in (*node.inputs[1:], "", "")[:2]]
        low, high = node.get("min", ends[0]), node.get("max", ends[1])
        return None if low is None or high is None else (low, high, node.inputs[0])


def _pairs(node: Node) -> Iterator[tuple[str, str]]:
    if len(node.inputs) == 2:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]


def _near(value: float, wanted: float) -> bool:
    return math.isclose(value, wanted, rel_tol=NEAR)


def _silu(graph: Patterns, node: Node) -> Node | None:
    """x sigmoid(x)"""
    if node.operator != "Mul":
        return None
    for x, gate in _pairs(node):
        maker = graph.maker(gate, "Sigmoid")
        if maker is not None and maker.inputs == (x,):
            return _operator(node, "Swish", x)
    return None


def _hard_sigmoid(graph: Patterns, node: Node) -> Node | None:
    """clip(x + 3, 0, 6) / 6"""
    scaled = graph.scaled(node)
    if scaled is None or not _near(scaled[0], 1 / 6):
        return None
    x = _clipped(graph, scaled[1])
    return None if x is None else _operator(node, "HardSigmoid", x, alpha=1 / 6)


def _hard_sigmoid_of_a_line(graph: Patterns, node: Node) -> Node | None:
    """clip(alpha x + beta, 0, 1)"""
    limits = graph.limits(node)
    line = graph.maker(limits[2], "Scale") if limits and limits[:2] == (0, 1) else None
    if line is None:
        return None
    x, alpha, beta = line.inputs[0], graph.number(line.inputs[1]), graph.number(line.inputs[2])
    return None if alpha is None or beta is None else _operator(node, "HardSigmoid", x, alpha=alpha, beta=beta)


def _clipped(graph: Patterns, name: str) -> str | None:
    """Return x of clip(x + 3, 0, 6)."""
    limits = graph.limits(graph.makers.get(name))
    shifted = graph.shifted(graph.makers.get(limits[2])) if limits and limits[:2] == (0, 6) else None
    return shifted[1] if shifted and shifted[0] == 3 else None


def _hard_swish(graph: Patterns, node: Node) -> Node | None:
    """x hard_sigmoid(x)"""
    if node.operator != "Mul":
        return None
    for x, gate in _pairs(node):
        maker = graph.maker(gate, "HardSigmoid")
        if maker is None or maker.inputs != (x,):
            continue
        if _near(maker.get("alpha", 0.2), 1 / 6) and _near(maker.get("beta", 0.5), 0.5):
            return _operator(node, "HardSwish", x)
    return None


def _hard_swish_divided_last(graph: Patterns, node: Node) -> Node | None:
    """x clip(x + 3, 0, 6) / 6"""
    scaled = graph.scaled(node)
    product = graph.maker(scaled[1], "Mul") if scaled and _near(scaled[0], 1 / 6) else None
    for x, gate in _pairs(product) if product else ():
        if _clipped(graph, gate) == x:
            return _operator(node, "HardSwish", x)
    return None


def _both_limits(graph: Patterns, node: Node) -> Node | None:
    """min(max(x, low), high), or the same in the other order"""
    inner = {"Min": "Max", "Max": "Min"}.get(node.operator, "")
    for first, outer in _pairs(node) if inner else ():
        maker = graph.maker(first, inner)
        for x, name in _pairs(maker) if maker and graph.number(outer) is not None else ():
            if graph.number(name) is not None:
                return _operator(node, "Clip", x, *((name, outer) if inner == "Max" else (outer, name)))
    return None


def _gelu(graph: Patterns, node: Node) -> Node | None:
    """x / 2 (1 + erf(x / sqrt(2))), in any order"""
    if node.operator not in ("Mul", "Div"):
        return None
    for gate in _factors(graph, node, 3):
        shifted = graph.shifted(graph.maker(gate, "Add"))
        erf = graph.maker(shifted[1], "Erf") if shifted and shifted[0] == 1 else None
        inner = graph.scaled(graph.makers.get(erf.inputs[0])) if erf else None
        if (
            inner
            and _near(inner[0], math.sqrt(0.5))
            and _product(graph, node.outputs[0], (inner[1], gate), node) == 0.5
        ):
            return _operator(node, "Gelu", inner[1])
    return None


def _factors(graph: Patterns, node: Node, depth: int) -> Iterator[str]:
    for name in node.inputs:
        yield name
        maker = graph.maker(name, "Mul", "Div")
        if maker is not None and depth > 0:
            yield from _factors(graph, maker, depth - 1)


def _product(graph: Patterns, name: str, leaves: tuple[str, str], node: Node) -> float | None:
    """Return the number that a product consists of beside the two leaves, each once; None for another product."""
    number, found, rest = 1.0, list[str](), [node.outputs[0]]
    for _ in range(8):
        if not rest:
            return number if sorted(found) == sorted(leaves) else None
        name = rest.pop()
        maker = node if name == node.outputs[0] else graph.maker(name, "Mul", "Div")
        if name in leaves:
            found.append(name)
        elif (value := graph.number(name)) is not None:
            number *= value
        elif maker is None:
            return None
        elif maker.operator == "Mul":
            rest += maker.inputs
        else:
            divisor = graph.number(maker.inputs[1])
            if not divisor:
                return None
            number /= divisor
            rest.append(maker.inputs[0])
    return None


def _divided_by_root(graph: Patterns, node: Node) -> Node | None:
    """(x - mean) / sqrt(mean of (x - mean)^2 + epsilon)"""
    if node.operator != "Div":
        return None
    difference, root = graph.maker(node.inputs[0], "Sub"), graph.maker(node.inputs[1], "Sqrt")
    if difference is None or root is None:
        return None
    x, mean = difference.inputs
    return _normalization(graph, node, x, mean, root)


def _normalization(graph: Patterns, node: Node, x: str, mean: str, root: Node, *numbers: str) -> Node | None:
    """Return the normalization that ends with a node, for the root of x's variance; None if the two do not match."""
    shifted = graph.shifted(graph.maker(root.inputs[0], "Add"))
    variance = graph.maker(shifted[1], "ReduceMean") if shifted else None
    square = graph.maker(variance.inputs[0], "Pow", "Mul") if variance else None
    difference = graph.maker(square.inputs[0], "Sub") if square else None
    average = graph.average(mean)
    if shifted is None or variance is None or square is None or difference is None or average is None:
        return None
    is_square = graph.number(square.inputs[1]) == 2 if square.operator == "Pow" else len(set(square.inputs)) == 1
    same = difference.inputs[0] == average.inputs[0] == x and graph.average(difference.inputs[1]) == average
    axes = [axes_of(each, [graph.known.get(name) for name in each.inputs]) for each in (average, variance)]
    if not (is_square and same and axes[0] and axes[0] == axes[1]):
        return None
    return _operator(node, "Normalization", x, *numbers, axes=axes[0], epsilon=shifted[0])


def _scaled_normalization(graph: Patterns, node: Node) -> Node | None:
    """A normalization, times a scale, plus a bias"""
    if node.operator != "Add":
        return None
    for product, bias in _pairs(node):
        maker = graph.maker(product, "Mul")
        for z, scale in _pairs(maker) if maker and bias in graph.known else ():
            norm = graph.maker(z, "Normalization")
            if norm is not None and len(norm.inputs) == 1 and scale in graph.known:
                return replace(norm, name=node.name, inputs=(*norm.inputs, scale, bias), outputs=node.outputs)
    return None


def _keras_normalization(graph: Patterns, node: Node) -> Node | None:
    """x s + bias - mean s, for s = scale / sqrt(variance + epsilon); with or without scale and bias"""
    if node.operator != "Add":
        return None
    for first, second in _pairs(node):
        product, rest = graph.maker(first, "Mul"), graph.maker(second, "Mul", "Sub")
        bias = rest.inputs[0] if rest and rest.operator == "Sub" and rest.inputs[0] in graph.known else None
        shift = graph.maker(rest.inputs[1], "Mul") if rest and bias else rest
        if product is None or shift is None or shift.operator != "Mul":
            continue
        for s in set(product.inputs) & set(shift.inputs):
            [x], [mean] = ([name for name in each.inputs if name != s] or [s] for each in (product, shift))
            negative = graph.maker(mean, "Neg")
            if (bias is None) == (negative is None):
                continue
            found = _rooted(graph, s)
            if found is not None:
                numbers = [found[1] or "", bias or ""]
                average = negative.inputs[0] if negative else mean
                return _normalization(graph, node, x, average, found[0], *numbers)
    return None


def _rooted(graph: Patterns, name: str) -> tuple[Node, str | None] | None:
    """Return the root and the scale, if there is one, of a tensor scale / root."""
    maker, scale = graph.makers.get(name), None
    for other, constant in _pairs(maker) if maker and maker.operator == "Mul" else ():
        if constant in graph.known:
            maker, scale = graph.makers.get(other), constant
            break
    root = graph.maker(maker.inputs[0], "Sqrt") if maker and maker.operator == "Reciprocal" else None
    return None if root is None else (root, scale)


def _stochastic_depth(graph: Patterns, node: Node) -> Node | None:
    """x times random numbers, one for each example, that are 0 or 1 / p"""
    if node.operator != "Mul":
        return None
    for x, noise in _pairs(node):
        quotient = graph.maker(noise, "Div")
        cast = graph.maker(quotient.inputs[0], "Cast") if quotient else None
        less = graph.maker(cast.inputs[0], "Less") if cast else None
        if less is not None and quotient is not None and graph.maker(less.inputs[0], "RandomUniformLike"):
            kept = graph.number(less.inputs[1])
            if kept is not None and kept == graph.number(quotient.inputs[1]):
                return _operator(node, "StochasticDepth", x, ratio=1 - kept)
    return None


def _keras_prelu(graph: Patterns, node: Node) -> Node | None:
    """relu(x) + relu(-x) times a constant"""
    if node.operator != "Add":
        return None
    for positive, product in _pairs(node):
        relu, maker = graph.maker(positive, "Relu"), graph.maker(product, "Mul")
        for other, slope in _pairs(maker) if relu and maker else ():
            below = graph.maker(other, "Relu")
            negative = graph.maker(below.inputs[0], "Neg") if below else None
            if relu and negative and negative.inputs == relu.inputs and slope in graph.known:
                return _operator(node, "NegatedPRelu", relu.inputs[0], slope)
    return None


def _linear(graph: Patterns, node: Node) -> Node | None:
    """A product with a constant matrix, plus a bias"""
    if node.operator != "Add":
        return None
    for product, bias in _pairs(node):
        maker = graph.maker(product, "MatMul")
        if maker is None or bias not in graph.known or len(maker.inputs) != 2 or maker.inputs[1] not in graph.known:
            continue
        weight, values = graph.known[maker.inputs[1]], graph.known[bias]
        if weight.ndim == 2 and values.size in (1, weight.shape[1]) and values.shape[-1:] in ((), (values.size,)):
            return replace(node, operator="MatMul", inputs=(*maker.inputs, bias), given=node.given or maker.given)
    return None


def _scale(graph: Patterns, node: Node) -> Node | None:
    """A product with a constant, plus a constant"""
    if node.operator != "Add":
        return None
    for product, bias in _pairs(node):
        maker = graph.maker(product, "Mul")
        if maker is None or bias not in graph.known or len(maker.inputs) != 2:
            continue
        if graph.is_ours and maker.name != f"{node.name}.product":  # they were two layers
            continue
        for x, weight in _pairs(maker):
            if weight in graph.known and x not in graph.known and graph.known[weight].shape == graph.known[bias].shape:
                return _operator(node, "Scale", x, weight, bias)
    return None


def _standardized(graph: Patterns, node: Node) -> Node | None:
    """x minus a constant for each channel, divided by one"""
    difference = graph.maker(node.inputs[0], "Sub") if node.operator == "Div" else None
    if difference is None or node.inputs[1] not in graph.known or difference.inputs[1] not in graph.known:
        return None
    mean, deviation = graph.known[difference.inputs[1]], graph.known[node.inputs[1]]
    if mean.shape != deviation.shape or (mean.size == 1 and not graph.is_ours):
        return None
    return _operator(node, "Standardize", difference.inputs[0], difference.inputs[1], node.inputs[1])


def _group_norm(graph: Patterns, node: Node) -> Node | None:
    """InstanceNormalization of groups in place of channels, then a scale and a bias of the channels"""
    if node.operator != "Scale":
        return None
    shape = graph.maker(node.inputs[0], "Reshape")
    norm = graph.maker(shape.inputs[0], "InstanceNormalization") if shape else None
    groups = graph.maker(norm.inputs[0], "Reshape") if norm else None
    if norm is None or groups is None or any(name not in graph.known for name in norm.inputs[1:]):
        return None
    weight, bias = (graph.known[name] for name in norm.inputs[1:])
    own, own_bias = (graph.known[name] for name in node.inputs[1:])
    plain = (weight == 1).all() and (bias == 0).all()
    per_channel = own.shape == own_bias.shape and own.size == own.shape[0 if own.ndim < 4 else 1]
    if not plain or not per_channel or own.size % len(weight):
        return None
    options: dict[str, Any] = {"num_groups": len(weight), "epsilon": norm.number("epsilon", 1e-5)}
    return _operator(node, "GroupNormalization", groups.inputs[0], *node.inputs[1:], **options)


def _operator(node: Node, operator: str, *inputs: str, **attributes: Any) -> Node:
    """Return the node that takes the place of another one."""
    return replace(node, operator=operator, inputs=inputs, attributes=attributes, used=set())


MATCHES: Sequence[Callable[[Patterns, Node], Node | None]] = (
    _both_limits, _silu, _hard_sigmoid, _hard_sigmoid_of_a_line,
    _hard_swish, _hard_swish_divided_last, _gelu, _divided_by_root,
    _stochastic_depth, _linear, _scaled_normalization, _keras_normalization, _keras_prelu, _scale, _group_norm,
    _standardized,
)  # fmt: skip
