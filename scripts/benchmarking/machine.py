"""The machine that the benchmark runs on, and what each framework makes of it."""

import os
import platform
import re
from collections.abc import Sequence

from benchmarking.processes import process
from benchmarking.work import Machine, Speed
from lowered_cnn.cores import usable_cores
from lowered_cnn.kernels import processor

ONEDNN = re.compile(r"^onednn_verbose,\S*info,(?:(oneDNN v[\d.]+)|cpu,isa:(.+))", re.MULTILINE)
"""What oneDNN, which PyTorch and TensorFlow have, prints about itself: its version, and the instructions it uses."""


def machine() -> Machine:
    """Describe this machine."""
    found, memory = processor(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = f"{platform.system()} {platform.machine()}"
    names = found.name, found.vendor, found.family, found.model
    return Machine(*names, usable_cores(), memory, system, platform.python_version())


def speed(framework: str, cores: int, environment: str, seconds: float) -> Speed:
    """Ask a framework for its kernels, and measure a large product on this many cores."""
    with process(cores, environment, framework) as asked:
        answer = asked.ask("speed", framework=framework, seconds=seconds)
        assert isinstance(answer, dict)
        return Speed(framework, cores, kernels(answer["kernels"], asked.printed), answer["flops"])


def kernels(own: str, printed: Sequence[str]) -> str:
    """Join what a framework says about its kernels itself and what its oneDNN, if it has one, printed."""
    told = [part for match in ONEDNN.findall("".join(printed)) for part in match if part]
    return ", ".join(filter(None, [own, *told])) or "unknown"
