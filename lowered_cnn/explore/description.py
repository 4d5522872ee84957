"""A network described for the page: its stages, their windows and parameters, and the lines of code that run them."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import lowered_cnn
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.payload import packed
from lowered_cnn.gemm import affine, multiply_a_bt, multiply_at_b, row_sums
from lowered_cnn.layers import AvgPool, Dense, MaxPool
from lowered_cnn.layers.container import Stage, stages_of
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.layer import Layer, is_stock
from lowered_cnn.losses import SoftmaxCrossEntropy, softmax
from lowered_cnn.lowering import Columns, windows
from lowered_cnn.network import Network
from lowered_cnn.optimizers import SGD
from lowered_cnn.training.reduction import deal
from lowered_cnn.verify.differences import derivative
from lowered_cnn.window import Sweep, Window

PACKAGE = Path(lowered_cnn.__file__).parents[1]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "im2col": Columns.im2col,
    "windows": windows,
    "affine": affine,
    "dweight": multiply_a_bt,
    "dx": multiply_at_b,
    "dbias": row_sums,
    "col2im": Columns.col2im,
    "softmax": softmax,
    "loss": SoftmaxCrossEntropy.value_and_gradient,
    "sgd": SGD.over,
    "derivative": derivative,
    "output size": Window.over,
    "shard tree": deal,
}
"""The functions that the page shows beside an equation, by what they compute."""


def described(network: Network, classes: Sequence[str]) -> dict[str, JSON]:
    """Return what the page needs to know of a network before it has seen an image."""
    lowered = network.lower(1, training=False, wants_dx=True, fused=False)
    return {
        "classes": list(classes),
        "input_shape": list(network.input_shape),
        "stages": [_stage(network, stage) for stage in stages_of(lowered.layers)],
        "code": {name: _code(function) for name, function in FUNCTIONS.items()},
    }


def weights(network: Network) -> dict[str, JSON]:
    """Return the parameters by name."""
    return {name: packed(network.parameters[name]) for name in network.parameters}


def _stage(network: Network, stage: Stage) -> dict[str, JSON]:
    site, layer = stage.site, stage.layer
    owned = [f"{site.owner}.{parameter.name}" for parameter in layer.parameters(site.input_shape)]
    sweep = layer.sweep(site.input_shape, site.name) if isinstance(layer, Conv | MaxPool | AvgPool) else None
    return {
        "name": site.name,
        "kind": layer.kind,
        "view": _view(stage),
        "layer": repr(layer)[:200],
        "equation": _equation(type(layer)),
        "input_shape": list(site.input_shape),
        "output_shape": list(stage.y_shape[:-1]),
        "parameters": [name for name in owned if name in network.parameters],
        "groups": layer.groups if isinstance(layer, Conv) else 1,
        "sweep": None if sweep is None else _sweep(sweep),
        "counts": packed(layer.counts(sweep)) if isinstance(layer, AvgPool) and sweep else None,
        "code": {"forward": _code(type(stage.lowered).forward), "backward": _code(type(stage.lowered).backward)},
    }


def _view(stage: Stage) -> str:
    """Return how the page shows a stage: as what it is, or as "maps", its output beside its input."""
    layer, rank = stage.layer, len(stage.site.input_shape)
    for kind, view in ((Conv, "conv"), (MaxPool, "max_pool"), (AvgPool, "avg_pool")):
        if isinstance(layer, kind) and rank == 3 and is_stock(layer):
            return view
    return "dense" if isinstance(layer, Dense) and rank == 1 and is_stock(layer) else "maps"


def _equation(layer: type[Layer]) -> str:
    """Return the first line of a layer's docstring, or of its base's if the line refers to that."""
    lines = [(inspect.getdoc(kind) or "").partition("\n")[0] for kind in layer.__mro__]
    return next(line for line in lines if " are those of " not in line)


def _sweep(sweep: Sweep) -> dict[str, JSON]:
    window = sweep.window
    return {
        "kernel": list(window.kernel),
        "stride": list(window.stride),
        "dilation": list(window.dilation),
        "pads": [list(pair) for pair in sweep.pads],
        "size": list(sweep.size),
        "output": list(sweep.output),
    }


def _code(function: Callable[..., Any]) -> dict[str, JSON]:
    """Return a function's text, and where it is; empty for one whose source is not at hand."""
    try:
        lines, start = inspect.getsourcelines(function)
        path = Path(inspect.getsourcefile(function) or "")
    except (OSError, TypeError):
        return {"text": "", "place": ""}
    name = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else Path(path.name)
    return {"text": dedent("".join(lines)).rstrip(), "place": f"{name.as_posix()}:{start}"}
