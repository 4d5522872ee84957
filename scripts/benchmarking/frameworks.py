"""The frameworks by name: their modes, what they can do, and whether they are installed."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarking.work import JOBS, OWN_MODE

if TYPE_CHECKING:  # a cold start imports this file before its clock runs
    from benchmarking.framework import Framework


@dataclass(frozen=True)
class Known:
    """A framework, named after the module to import; `needs` lists other modules that it cannot run without."""

    name: str
    modes: tuple[str, ...]
    jobs: tuple[str, ...] = JOBS
    needs: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether everything it needs is there."""
        return all(find_spec(module) for module in (self.name, *self.needs))


PEERS = (
    Known("torch", ("eager", "channels_last", "compile")),
    Known("tensorflow", ("keras", "function", "xla"), needs=("keras",)),
    Known("jax", ("jit",)),
    Known("onnxruntime", ("session",), jobs=("inference",), needs=("onnx",)),
)


def load(name: str) -> "type[Framework]":
    """Import the framework and return the class that measures it."""
    measured: type[Framework] = import_module(f"benchmarking.with_{name}").Measured
    return measured


def default_mode(name: str) -> str:
    """Return the mode that a newcomer to the framework would use."""
    return next((peer.modes[0] for peer in PEERS if peer.name == name), OWN_MODE)
