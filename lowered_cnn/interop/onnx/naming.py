"""Names: what a model's file calls the layers that its nodes become."""

import re
from collections.abc import Sequence

ENDINGS = re.compile(r"(.+)\.(weight|bias|running_mean|running_var|mean|deviation)")
"""A parameter of PyTorch, or of this package."""

VARIABLE = re.compile(r"(.+?)/[^/]+/[^/]+:0")
"""A variable of Keras: MODEL/LAYER/OPERATION/ReadVariableOp:0."""


def name_of(node: str, constants: Sequence[str]) -> str | None:
    """Return the name of the layer that a node of this name, with these constants, becomes; None if there is none.

    That is what comes before ".weight" and the like in the name of a constant, or the Keras layer that it belongs to,
    or the module or layer that the node itself is named after.
    """
    for name in constants:
        if found := ENDINGS.fullmatch(name):
            return found[1]
    for name in constants:
        if found := VARIABLE.fullmatch(name):
            return _without_model(found[1])
        if "." in name and not re.search(r"[:/]", name):
            return name
    if constants and "/" in node:
        return _module(node)
    return node or None


def _without_model(path: str) -> str:
    """Return the path of a Keras layer without the names of the models around it."""
    parts = [part for part in path.split("/") if part not in ("batchnorm", "StatefulPartitionedCall")]
    return "/".join(parts[1:] or parts)


def _module(node: str) -> str | None:
    """Return the module that a node of PyTorch's first exporter, as in /layer1/layer1.0/conv1/Conv, stands for."""
    if not node.startswith("/"):
        return _without_model(node.rpartition("/")[0])
    parts = node.strip("/").split("/")[:-1]
    pairs = zip(parts, [*parts[1:], ""], strict=False)
    return ".".join(part for part, inner in pairs if not inner.startswith(f"{part}.")) or None
