"""What computes on this machine: the BLAS as NumPy was built with it, and processors as Linux describes them."""

import platform
from pathlib import Path

import numpy as np
import pytest

from lowered_cnn.kernels import Processor, blas, instructions, processor

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 106
model name\t: A processor: of Intel
flags\t\t: fpu avx2

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 107
model name\t: Another
"""


@pytest.mark.parametrize(
    ("text", "described", "line"),
    [
        (
            X86,
            Processor("A processor: of Intel", "GenuineIntel", "6", "106"),
            "A processor: of Intel (GenuineIntel, family 6, model 106)",
        ),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", Processor("a name"), "a name"),
        (None, Processor("a name"), "a name"),
    ],
)
def test_a_processor_is_described_as_far_as_the_system_tells(
    text: str | None, described: Processor, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "a name")
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(text)
    assert processor(tmp_path) == described
    assert str(described) == line


def test_the_blas_is_the_one_that_numpy_was_built_with() -> None:
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    if built["name"] != "scipy-openblas":
        pytest.skip("not a wheel of NumPy, whose BLAS may be exchanged")
    (found,) = blas()
    assert (found.name, found.version) == ("openblas", built["version"])
    assert found.kernels
    assert str(found) == f"openblas {found.version} {found.kernels}"


def test_instructions_are_not_told_twice() -> None:
    found = instructions().split()
    assert len(found) == len(set(found))
    assert set(found).isdisjoint(np.show_config(mode="dicts")["SIMD Extensions"]["baseline"])
