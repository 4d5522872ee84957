"""The fuzzer: it passes sound readers, a few hundred times each, and finds faults that are planted in them."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("resource", reason="limits of POSIX")

import fuzz
from fuzzing.target import Finds, Hang
from lowered_cnn import InputError, Network, Pad, load
from lowered_cnn.data import read_idx
from lowered_cnn.data.npy import read_npy
from lowered_cnn.interop.onnx import from_onnx
from lowered_cnn.training.checkpoint import read_state

LINUX = sys.platform == "linux"


def drive(name: str, folder: Path, runs: int) -> tuple[list[int], list[str]]:
    """Fuzz without guidance; return the counts of executions, of inputs read and of kinds of finds, and the finds."""
    counts, finds = [0, 0, 0], folder / "finds"
    finds.mkdir()
    target = fuzz.plain_target(name, folder)
    fuzz.blind(target, fuzz.counting(name, target, finds, counts), runs, 1e6, seed=0)
    return counts, sorted(path.read_text() for path in finds.glob("*.txt"))


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_every_reader_refuses_or_reads_a_few_hundred_inputs(name: str, tmp_path: Path) -> None:
    (executions, read, _), finds = drive(name, tmp_path, 300)
    assert finds == []
    assert executions == 300
    assert 0 < read < 300


def doubled(network: Network) -> Network:
    network.parameters.vector[...] *= 2
    return network


PLANTED: dict[str, tuple[str, Any]] = {
    "idx": ("data.read_idx", lambda path: read_idx(path)[..., ::-1]),
    "npy": ("data.read_npy", lambda path: read_npy(path).T),
    "network": ("storage.load", lambda path: doubled(load(path))),
    "checkpoint": ("storage.read_state", lambda path: replace(read_state(path), step=-1)),
    "onnx": ("onnx_models.from_onnx", lambda path: doubled(from_onnx(path))),
    "config": ("settings.RunFolder.classes", ["another"]),
    "description": ("settings.restore", lambda tree: Pad(1, math.nan)),
}


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_reader_that_reads_something_else_is_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, wrong = PLANTED[name]
    monkeypatch.setattr(f"fuzzing.{target}", wrong)
    (_, _, kinds), finds = drive(name, tmp_path, 60)
    assert kinds == len(finds) >= 1


def never_ends(path: Path) -> None:
    while True:
        pass


def too_large(path: Path) -> None:
    try:
        bytearray(2**29)
    except MemoryError as error:
        raise InputError(str(path), "a file that fits", "a larger one") from error


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (never_ends, "Hang: more than"),
        pytest.param(
            too_large, "AssertionError: more memory", marks=pytest.mark.skipif(not LINUX, reason="its limits")
        ),
    ],
)
def test_time_and_memory_are_limited(read: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzing.target.SECONDS", 0.1)
    monkeypatch.setattr("fuzzing.data.read_idx", read)
    _, finds = drive("idx", tmp_path, 2)
    assert len(finds) == 1
    assert told in finds[0]


def test_the_first_input_of_each_kind_of_find_is_kept(tmp_path: Path) -> None:
    finds = Finds(tmp_path)
    for content, line in ((b"one", 1), (b"two", 1), (b"three", 2)):
        try:
            if line == 1:
                raise Hang("x")
            raise KeyError("x")
        except BaseException as error:
            finds.add("idx", content, error)
    assert sorted(path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".txt") == [b"one", b"three"]


def test_the_script_prints_a_table(tmp_path: Path) -> None:
    command = [sys.executable, fuzz.__file__, "idx", "npy", "--runs", "200", "--finds", str(tmp_path / "finds")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, *rows = done.stdout.splitlines()
    assert [row.split(" | ")[:2] for row in rows] == [["| idx", "200"], ["| npy", "200"]]
    assert all(row.endswith("| 0 |") for row in rows)
