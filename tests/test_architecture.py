"""How the house is built, read from its source: one door for matrix products, imports that go down, light to import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lowered_cnn

ROOT = Path(lowered_cnn.__file__).parent
MODULES = {
    ".".join(("lowered_cnn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

FLOORS = [
    {"arrays", "window", "workspace", "lowering", "gemm", "parameters", "cores"},
    {"layers", "losses"},
    {"fusion", "prediction", "augmentation", "models", "optimizers", "schedules"},
    {"network"},
    {"tracing", "ledger", "storage"},
    {"data"},
    {"training"},
    {""},
    {"interop", "verify"},
    {"cli"},
]
"""The rooms from the ground up; the one without a name is the front door, ``import lowered_cnn``."""

PRODUCTS = {
    "matmul", "dot", "vdot", "vecdot", "matvec", "vecmat", "multi_dot", "inner", "outer", "einsum", "einsum_path",
    "tensordot", "kron", "convolve", "correlate", "linalg",
}  # fmt: skip

HEAVY = {
    "safetensors", "tqdm", "threadpoolctl", "PIL", "torch", "scipy", "onnx", "argparse", "json", "gzip", "hashlib",
    "tempfile", "subprocess", "logging", "multiprocessing", "concurrent.futures", "asyncio", "sklearn",
    "lowered_cnn.cli", "lowered_cnn.interop", "lowered_cnn.verify",
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
                inner = {f"{module}.{alias.name}" for alias in aliases}
                found |= (inner & MODULES.keys()) or {module}
    return found & MODULES.keys()


def room(module: str) -> str:
    return ".".join(module.split(".")[1:2])


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def climbs(module: str, tree: ast.AST) -> set[str]:
    """Find the imports that go up; the data's room stands apart, it knows only arrays."""
    if room(module) == "data":
        return {other for other in imports(tree) if room(other) not in {"arrays", "data"}}
    return {other for other in imports(tree) if floor(other) > floor(module)}


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


def test_every_module_has_its_floor() -> None:
    assert {room(module) for module in MODULES} <= set.union(*FLOORS)


def test_imports_go_down_only() -> None:
    found = {module: climbs(module, tree) for module, tree in trees()}
    assert {module: others for module, others in found.items() if others} == {}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("lowered_cnn.window", "from lowered_cnn.layers.conv import Conv", {"lowered_cnn.layers.conv"}),
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
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    graph = {module: imports(tree) - {module} for module, tree in trees() if module not in packages}
    assert set(TopologicalSorter(graph).static_order()) >= graph.keys()


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
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    more = loaded_by("import lowered_cnn") - loaded_by("import numpy")
    assert "lowered_cnn.network" in more
    assert more & HEAVY == set()


def test_a_planted_heavy_import_is_found() -> None:
    assert loaded_by("import lowered_cnn, safetensors") & HEAVY >= {"safetensors"}
