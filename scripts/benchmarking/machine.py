"""The machine that the benchmark runs on."""

import os
import platform
from pathlib import Path

from benchmarking.processes import ask
from benchmarking.work import Machine, Peak
from lowered_cnn.cores import usable_cores


def machine() -> Machine:
    """Describe this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = f"{platform.system()} {platform.machine()}"
    return Machine(_processor(), usable_cores(), memory, system, platform.python_version())


def peak(core_count: int, seconds: float) -> Peak:
    """Measure a large matrix product on this many cores."""
    flops = ask("peak", core_count, seconds=seconds)
    assert isinstance(flops, float)
    return Peak(core_count, flops)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
