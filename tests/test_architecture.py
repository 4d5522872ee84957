"""How the house is built, read from its source: one door for matrix products, imports that go down, light to import."""

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import lowered_cnn

ROOT = Path(lowered_cnn.__file__).parent
MODULES = {
    ".".join(("lowered_cnn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

TABLE = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where things are\n")[2]
ROOMS = re.findall(r"`(\w+)/?`", "".join(line for line in TABLE.splitlines() if line.startswith("|")))
"""The rooms from the ground up, as the table "Where things are" has them; `lowered_cnn` is the front door."""

PRODUCTS = {
    "matmul", "dot", "vdot", "vecdot", "matvec", "vecmat", "multi_dot", "inner", "outer", "einsum", "einsum_path",
    "tensordot", "kron", "convolve", "correlate", "linalg",
}  # fmt: skip

HEAVY = {
    "safetensors", "tqdm", "threadpoolctl", "PIL", "torch", "scipy", "onnx", "argparse", "json", "gzip", "hashlib",
    "tempfile", "subprocess", "logging", "multiprocessing", "mpi4py", "concurrent.futures", "asyncio", "sklearn",
    "lowered_cnn.cli", "lowered_cnn.interop", "lowered_cnn.verify", "lowered_cnn.report", "lowered_cnn.explore",
    "matplotlib", "starlette", "uvicorn",
}  # fmt: skip


def trees() -> Iterator[tuple[str, ast.Module]]:
    for module, path in MODULES.items():
        yield module, ast.parse(path.read_text(encoding="utf-8"))


def names(node: ast.AST) -> Iterator[str]:
    """Yield what a node takes from somewhere else: an attribute, or what it imports."""
    match node:
        case ast.Attribute(attr=name):
            yield name
        case ast.Import(aliases) | ast.ImportFrom(names=aliases):
            for alias in aliases:
                yield from alias.name.split(".")


def products(tree: ast.AST) -> set[str]:
    """Find every matrix product, by whatever name."""
    found = {name for node in ast.walk(tree) for name in names(node) if name in PRODUCTS}
    return found | {"@" for node in ast.walk(tree) if isinstance(node, ast.MatMult)}


def imports(tree: ast.AST) -> set[str]:
    """Find the package's modules that a module imports, wherever in it; ``from m import n`` may mean m or m.n."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(aliases):
                found |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), names=aliases):
                taken = {f"{module}.{alias.name}" for alias in aliases}
                found |= taken if taken <= MODULES.keys() else taken | {module}
    return found & MODULES.keys()


def room(module: str) -> str:
    return module.split(".")[:2][-1]


def climbs(module: str, tree: ast.AST) -> set[str]:
    """Find the imports of rooms that stand behind this one; the data's room stands apart, it knows only arrays."""
    own = room(module)
    below = {"arrays"} if own == "data" else set(ROOMS[: ROOMS.index(own)])
    return {other for other in imports(tree) if room(other) not in below | {own}}


def packages(module: str) -> set[str]:
    """Return the packages that a module is in: to import it is to import these first."""
    return {*itertools.accumulate(module.split(".")[:-1], "{}.{}".format)}


def imported_first(module: str, tree: ast.AST) -> set[str]:
    """Find what must be complete before a module is: what it imports, and the packages that this is in.

    The module's own packages are exempt: Python has begun them, and completes them after it.
    """
    found = imports(tree)
    return found | set().union(*map(packages, found)) - packages(module) - {module}


def global_randomness(tree: ast.AST) -> set[str]:
    """Find uses of random numbers that come from nobody's generator."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_numpy_random(node.value)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(aliases):
                found |= {alias.name for alias in aliases if alias.name == "random"}
            case ast.ImportFrom(module="random" | "numpy.random", names=aliases):
                found |= {alias.name for alias in aliases}
    return found - {"default_rng", "Generator"}


def is_numpy_random(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "random" and isinstance(node.value, ast.Name)


def test_only_gemm_has_a_matrix_product() -> None:
    found = {module: products(tree) for module, tree in trees()}
    assert {module: names for module, names in found.items() if names} == {"lowered_cnn.gemm": {"matmul"}}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("z = w @ x", {"@"}),
        ("w @= x", {"@"}),
        ("z = np.matmul(w, x)", {"matmul"}),
        ("z = w.dot(x)", {"dot"}),
        ("from numpy import einsum as add", {"einsum"}),
        ("import numpy.linalg", {"linalg"}),
        ("f = np.tensordot", {"tensordot"}),
        ("'''z = w @ x, or np.dot'''\nouter = inner + w * x", set()),
    ],
)
def test_a_planted_product_is_found(source: str, found: set[str]) -> None:
    assert products(ast.parse(source)) == found


def test_every_room_stands_once_in_the_table() -> None:
    assert sorted(ROOMS) == sorted({room(module) for module in MODULES})


def test_imports_go_down_only() -> None:
    found = {module: climbs(module, tree) for module, tree in trees()}
    assert {module: others for module, others in found.items() if others} == {}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("lowered_cnn.window", "from lowered_cnn.layers.conv import Conv", {"lowered_cnn.layers.conv"}),
        ("lowered_cnn.window", "from lowered_cnn.lowering import im2col", {"lowered_cnn.lowering"}),
        ("lowered_cnn.lowering", "from lowered_cnn.window import Sweep", set()),
        ("lowered_cnn.layers.conv", "from lowered_cnn import network", {"lowered_cnn.network"}),
        ("lowered_cnn.losses", "def f():\n    import lowered_cnn.training.loop", {"lowered_cnn.training.loop"}),
        ("lowered_cnn.network", "from lowered_cnn import Dataset", {"lowered_cnn"}),
        ("lowered_cnn.data.idx", "from lowered_cnn.window import Window", {"lowered_cnn.window"}),
        ("lowered_cnn.data.idx", "from lowered_cnn.data.dataset import Dataset", set()),
        ("lowered_cnn.cli.train", "from lowered_cnn import train", set()),
    ],
)
def test_a_planted_import_that_climbs_is_found(module: str, source: str, found: set[str]) -> None:
    assert climbs(module, ast.parse(source)) == found


def test_imports_make_no_circle() -> None:
    graph = {module: imported_first(module, tree) for module, tree in trees()}
    assert set(TopologicalSorter(graph).static_order()) == graph.keys()


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("lowered_cnn.network", "import lowered_cnn.layers.conv", {"lowered_cnn.layers", "lowered_cnn.layers.conv"}),
        ("lowered_cnn.layers.pool", "from lowered_cnn.layers.conv import Conv", {"lowered_cnn.layers.conv"}),
        ("lowered_cnn.layers.pool", "from lowered_cnn.layers import Conv", {"lowered_cnn.layers"}),
        ("lowered_cnn.layers.pool", "from lowered_cnn.layers import conv", {"lowered_cnn.layers.conv"}),
        ("lowered_cnn.layers", "from lowered_cnn.layers import conv", {"lowered_cnn.layers.conv"}),
        ("lowered_cnn.cli.train", "from lowered_cnn import train", {"lowered_cnn"}),
    ],
)
def test_what_is_imported_before_a_module_is_found(module: str, source: str, found: set[str]) -> None:
    assert imported_first(module, ast.parse(source)) == found


def test_no_random_number_comes_from_the_global_state() -> None:
    found = {module: global_randomness(tree) for module, tree in trees()}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("np.random.seed(0)", {"seed"}),
        ("x = numpy.random.randn(3)", {"randn"}),
        ("from numpy.random import rand, default_rng", {"rand"}),
        ("import random", {"random"}),
        ("g = np.random.default_rng(0)\nx = g.random(3)", set()),
    ],
)
def test_planted_global_randomness_is_found(source: str, found: set[str]) -> None:
    assert global_randomness(ast.parse(source)) == found


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    return set(printed_by(f"{statement}\nimport sys\nprint(*sys.modules)").split())


def printed_by(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


PREDICTION = """
import numpy as np
from lowered_cnn import Conv2D, Dense, Flatten, MaxPool, Network, ReLU, Sequential, load
network = Network(Sequential(Conv2D(2, 3), ReLU(), MaxPool(2), Flatten(), Dense(10)), (1, 8, 8))
network.predict(np.zeros((1, 1, 8, 8)))
"""


def rooms_loaded_by(statement: str) -> set[str]:
    return {room(module) for module in loaded_by(statement) & MODULES.keys()}


def test_importing_the_package_loads_its_front_door_alone() -> None:
    assert loaded_by("import lowered_cnn") & MODULES.keys() == {
        "lowered_cnn", "lowered_cnn.launch", "lowered_cnn.layers", "lowered_cnn.on_demand"
    }  # fmt: skip


def test_a_prediction_loads_no_room_but_those_that_it_goes_through() -> None:
    unused = {"kernels", "models", "tracing", "ledger", "timing", *ROOMS[ROOMS.index("optimizers") :]}
    assert rooms_loaded_by(PREDICTION) == {*ROOMS} - unused | {"lowered_cnn"}


def test_the_command_line_loads_no_command_before_one_is_given() -> None:
    """Each worker of a training imports the program that started it."""
    loaded = loaded_by("from lowered_cnn.cli import main") & MODULES.keys()
    assert {module for module in loaded if room(module) == "cli"} == {
        "lowered_cnn.cli", "lowered_cnn.cli.arguments", "lowered_cnn.cli.errors"
    }  # fmt: skip
    assert {*map(room, loaded)} == {"launch", "on_demand", "arrays", "layers", "lowered_cnn", "cli"}


def test_a_training_loads_no_door_that_it_does_not_open() -> None:
    code = """
import sys
from lowered_cnn.cli import main
try:
    main(["train", "--help"])
except SystemExit:
    sys.stdout.flush()
"""
    assert rooms_loaded_by(code) & {"interop", "verify", "report", "explore"} == set()


def test_using_every_public_name_loads_nothing_heavy() -> None:
    more = loaded_by("from lowered_cnn import *") - loaded_by("import numpy")
    assert "lowered_cnn.network" in more
    assert more & HEAVY == set()


def test_a_planted_heavy_import_is_found() -> None:
    assert loaded_by("import lowered_cnn, safetensors") & HEAVY >= {"safetensors"}


@pytest.mark.parametrize("package", [lowered_cnn, lowered_cnn.layers], ids=str)
def test_the_names_are_the_same_for_type_checkers_and_at_run_time(package: ModuleType) -> None:
    typed = dict(typed_names(package))
    assert sorted(typed) == package.__all__
    for name, module in typed.items():
        assert getattr(package, name) is getattr(import_module(module), name)


def typed_names(package: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield what a package imports for type checkers: each name with the module that it comes from."""
    tree = ast.parse(MODULES[package.__name__].read_text(encoding="utf-8"))
    for node in ast.walk(next(node for node in tree.body if isinstance(node, ast.If))):
        match node:
            case ast.ImportFrom(module=str(module), names=aliases):
                yield from ((alias.name, module) for alias in aliases if alias.name == alias.asname)


def test_a_fresh_package_shows_all_its_names() -> None:
    code = (
        "import lowered_cnn; print({*lowered_cnn.__all__, '__version__', 'layers', 'training'} - {*dir(lowered_cnn)})"
    )
    assert printed_by(code) == "set()\n"


def test_a_room_of_the_package_is_its_attribute() -> None:
    code = "import lowered_cnn as cnn; print(cnn.training.Recipe is cnn.Recipe, cnn.layers.conv.Conv2D is cnn.Conv2D)"
    assert printed_by(code) == "True True\n"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'lowered_cnn' has no attribute 'Conv4D'$"):
        getattr(lowered_cnn, "Conv4D")  # noqa: B009 (the type checker knows that there is none)
