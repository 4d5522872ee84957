"""Cold starts: how long a framework takes to import and to make its first prediction, and its size on disk."""

import re
import time
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarking.frameworks import default_mode, load
from benchmarking.processes import process
from benchmarking.work import OURS, Installed, Start

NETWORK = "lenet5"


def start(framework: str, cores: int) -> dict[str, float]:
    """Import the framework, build a network, predict one image; the benchmark's own imports are not counted.

    Ours imports its names when they are used, so that it is charged for those of the network as well.
    """
    began = time.monotonic()
    import_module(framework)
    if framework == OURS:
        import_module(f"{framework}.network")
        import_module(f"{framework}.models")
    imported = time.monotonic()
    from benchmarking.framework import Setting
    from benchmarking.questions import INPUT_SHAPE
    from lowered_cnn import Network
    from lowered_cnn.models import MODELS

    ready = time.monotonic()
    measured = load(framework)(Network(MODELS[NETWORK](), INPUT_SHAPE), Setting(default_mode(framework), 1, cores))
    measured.predict(measured.images(1)[0])
    done = time.monotonic()
    return {"import_seconds": imported - began, "done": done - (ready - imported)}


def starts(frameworks: Sequence[str], rounds: int, cores: int, environment: str) -> Iterator[Start]:
    """Start a process for each framework in turn, round after round."""
    for _ in range(rounds):
        for framework in frameworks:
            yield _measure(framework, cores, environment)


def _measure(framework: str, cores: int, environment: str) -> Start:
    began = time.monotonic()  # all processes of a machine share this clock
    with process(cores, environment, framework) as fresh:
        answer = fresh.ask("start", framework=framework)
    assert isinstance(answer, dict)
    return Start(framework, answer["import_seconds"], answer["done"] - began)


def installed(framework: str) -> Installed:
    """Add up the files of a framework and of its dependencies, without extras and compiled bytecode."""
    distribution = metadata.distribution(framework)
    names = set(_closure(_normalized(framework), set()))
    return Installed(framework, distribution.version, sum(map(_bytes, names)))


def _closure(name: str, met: set[str]) -> Iterator[str]:
    """Yield a distribution and its dependencies, if they are installed."""
    met.add(name)
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    yield name
    for requirement in required:
        found = re.match(r"[\w.-]+", requirement)
        if found and "extra ==" not in requirement and (needed := _normalized(found[0])) not in met:
            yield from _closure(needed, met)


def _bytes(name: str) -> int:
    distribution = metadata.distribution(name)
    files = [Path(str(file.locate())) for file in distribution.files or []]
    spec = find_spec(OURS) if name == _normalized(OURS) else None
    if spec and spec.origin:  # installed for development: its files are not listed
        files = list(Path(spec.origin).parent.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
