"""The benchmark: its arithmetic, its files, a small run, and peers that compute what we compute."""

import dataclasses
import itertools
import json
import platform
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from running import assert_close

import benchmark
from benchmarking import cold_start, growth, with_lowered_cnn
from benchmarking.costs import cost
from benchmarking.figures import Spread, duels, fastest, over_rounds
from benchmarking.framework import OPTIMIZER, Setting
from benchmarking.frameworks import PEERS, Known
from benchmarking.layers import placed, pool_size, sides
from benchmarking.machine import kernels, speed
from benchmarking.processes import SCRIPTS, TUNING, ProcessError, process, variables_of
from benchmarking.questions import BIAS, INPUT_SHAPE
from benchmarking.report import report, table
from benchmarking.timing import Timed, Timing, measure
from benchmarking.work import OURS, Growth, Installed, Machine, Pair, Results, Speed, Start, Subject, Work
from lowered_cnn import Conv2D, Dense, Flatten, InputError, MaxPool, Network, Sequential, summary
from lowered_cnn.arrays import Array
from lowered_cnn.kernels import blas, instructions
from lowered_cnn.models import MODELS

WORK = Work("lenet5", 1, 1)
EAGER, COMPILED = Subject("torch", "eager"), Subject("torch", "compile")


def pair(ours: float, theirs: float, peer: Subject = EAGER) -> Pair:
    return Pair("training", WORK, Timing(ours, ours / 2, 5), peer, Timing(theirs, theirs / 2, 5))


def results() -> Results:
    """Make up results with a record of every kind."""
    return Results(
        Machine("a processor", "a vendor", "6", "85", 2, 2**34, "an operating system", "3.12"),
        environment="user",
        rounds=3,
        seconds=1.0,
        pairs=[pair(1, 2), pair(2, 3), pair(4, 12), pair(1, 1.5, COMPILED), Pair("inference", WORK, Timing(1, 1, 5))],
        costs=[cost("lenet5", 1)],
        speeds=[Speed(OURS, 1, "a BLAS", 1e11), Speed(OURS, 1, "a BLAS", 1.2e11), Speed("torch", 1, "AVX2", 5e10)],
        starts=[Start("torch", 1.0, 1.5), Start("torch", 1.2, 1.4)],
        installed=[Installed("torch", "2", 754_000_000)],
        growth=[Growth("batch", 2, 2, Timing(0.1, 0.1, 5), 3_000_000, 1_000_000)],
        failures=["jax, jit: broke"],
    )


def test_ratios_are_taken_pair_by_pair() -> None:
    eager, compiled = duels(results().pairs)
    assert (eager.peer, compiled.peer) == (EAGER, COMPILED)
    assert eager.ratio == Spread(median=2.0, minimum=1.5, maximum=3.0)
    assert eager.ours == Timing(median=2, minimum=0.5, samples=15)
    assert eager.theirs == Timing(median=3, minimum=1.0, samples=15)


def test_the_fastest_mode_is_compared() -> None:
    best = fastest(duels(results().pairs), "torch")
    assert best
    assert best.peer == COMPILED
    assert fastest(duels(results().pairs), "jax") is None


def test_a_timing_holds_median_and_minimum() -> None:
    assert Timing.of([3.0, 1.0, 2.0, 9.0]) == Timing(2.5, 1.0, 4)
    assert over_rounds([Timing(3, 1, 5), Timing(5, 2, 5), Timing(4, 0.5, 6)]) == Timing(4, 0.5, 16)


def test_measuring_times_every_step_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the steps advance, 1/256 s each: 3 to warm up, then 5 runs of 20 ms."""
    calls: list[str] = []
    monkeypatch.setattr(time, "perf_counter", lambda: calls.count("step") / 256)
    run = Timed(lambda: calls.append("step"), lambda: calls.append("wait"), lambda: calls.append("close"))
    assert measure(run, 0.01) == Timing(1 / 256, 1 / 256, 5)
    assert calls == 3 * ["step", "wait"] + 5 * [*5 * ["step"], "wait"] + ["close"]


def test_results_are_read_back_as_written(tmp_path: Path) -> None:
    results().write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rounds": "many"}, "results.json.rounds: expected int, got many"),
        ({"pairs": [{"job": "training"}]}, "results.json.pairs[0]: expected Pair, got {'job': 'training'}"),
        ({"surprise": 1}, "results.json: expected Results, got {'machine'"),
    ],
)
def test_a_file_of_another_form_is_refused(
    change: dict[str, object], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**dataclasses.asdict(results()), **change}))
    assert line in fails(["--report", str(path)], capsys)


def test_every_kind_of_result_has_a_table() -> None:
    text = "\n\n".join(report(results()))
    for caption in ("Our training, 1 core", "Our inference, 1 core", "Training, batch 1", "Cold start", "Growth with"):
        assert f"**{caption}" in text
    for line in (
        "- a processor (a vendor, family 6, model 85), 2 cores, 16 GiB; an operating system, Python 3.12; torch 2",
        "- Environment: without variables that begin with DNNL_, MKL_, NPY_, OMP_, ONEDNN_, OPENBLAS_, TF_ONEDNN_",
        "- Kernels of torch: AVX2",
        "- A product of 2048 x 2048 on 1 core, GFLOP/s: lowered_cnn 120, torch 50",
        "- Left out: jax, jit: broke",
    ):
        assert line in text.splitlines()


def test_the_tables_have_the_form_of_the_document() -> None:
    """For each batch, the frameworks side by side, each in its fastest mode; one that did not answer leaves gaps."""
    other = Work("caffe_lenet", 1, 1)
    jax = Subject("jax", "jit")
    pairs = [pair(1, 2), pair(1, 1.5, COMPILED), pair(2, 8, jax), dataclasses.replace(pair(0.5, 2), work=other)]
    text = "\n\n".join(
        report(dataclasses.replace(results(), pairs=pairs, costs=[*results().costs, cost(other.network, 1)]))
    )
    rows = [
        ["lenet5", "1,000 (500)", "1,500 (750), compile", "1.50 (1.50..1.50)"],
        ["caffe_lenet", "500 (250)", "2,000 (1,000), eager", "4.00 (4.00..4.00)"],
    ]
    rows[0] += ["2,000 (1,000)", "8,000 (4,000), jit", "4.00 (4.00..4.00)"]
    rows[1] += ["", "", ""]
    expected = table(["network", "ours", "PyTorch", "ratio", "ours", "JAX", "ratio"], rows)
    caption = "**Training, batch 1, 1 core** (geometric mean of the ratios: PyTorch 2.45, JAX 4.00):"
    assert f"{caption}\n\n{expected}" in text
    heading = "**Training, batch 1, 1 core, ours with OPENBLAS_CORETYPE=Haswell, allocator tuned** ("
    pairs = [pair(1, 2, dataclasses.replace(EAGER, allocator="tuned"))]
    assert heading in "\n".join(report(dataclasses.replace(results(), environment="avx2", pairs=pairs)))


def test_tables_are_aligned_markdown() -> None:
    assert table(["name", "ms"], [["a", "1.25"], ["longer", "10"]]) == (
        "| name   |   ms |\n| ------ | ---: |\n| a      | 1.25 |\n| longer |   10 |"
    )


def test_results_of_several_runs_are_put_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = dataclasses.replace(results(), pairs=[pair(1, 2, Subject("jax", "jit"))])
    for name, each in (("a", results()), ("b", more)):
        each.write(tmp_path / name)
    assert benchmark.main(["--report", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert text.count("a processor") == 1
    assert "JAX" in text


def test_results_from_two_environments_are_not_put_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("user", "avx2"):
        dataclasses.replace(results(), environment=name).write(tmp_path / name)
    assert benchmark.main(["--report", str(tmp_path / "user"), str(tmp_path / "avx2"), str(tmp_path / "user")]) == 0
    text = capsys.readouterr().out
    assert text.count("a processor") == 2
    assert text.count("- Environment: as user, but our processes have OPENBLAS_CORETYPE=Haswell") == 1


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set a variable of every kind that tunes a library, and return their names."""
    names = [f"{beginning}SOMETHING" for beginning in TUNING]
    for name in names:
        monkeypatch.setenv(name, "1")
    return names


def test_variables_that_tune_a_library_are_left_out(tuned: list[str]) -> None:
    assert set(variables_of("inherited", OURS)) >= {*tuned, "PATH"}
    for framework, held in ((OURS, {"OPENBLAS_CORETYPE": "Haswell"}), ("torch", {})):
        user, avx2 = (variables_of(environment, framework) for environment in ("user", "avx2"))
        assert set(tuned).isdisjoint(user)
        assert user["PATH"]
        assert avx2 == user | held


@pytest.mark.skipif("X86_V3" not in instructions(), reason="a processor without AVX2")
def test_a_real_process_is_free_of_them_or_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    told = {name: speed(OURS, 1, name, 0.01) for name in ("user", "inherited", "avx2")}
    (here,) = blas()
    assert told["user"].kernels not in (told["inherited"].kernels, "unknown")
    assert told["avx2"].kernels == f"openblas {here.version} Haswell"
    assert all(each.flops > 1e8 for each in told.values())


@pytest.mark.slow
@pytest.mark.parametrize("peer", [peer.name for peer in PEERS])
def test_peers_tell_their_kernels_and_multiply(peer: str) -> None:
    need(peer)
    found = speed(peer, 1, "user", 0.01)
    assert found.flops > 1e8
    if peer in ("torch", "tensorflow") and platform.machine() == "x86_64":
        assert re.search(r"oneDNN v[\d.]+, \w", found.kernels)


def test_what_onednn_prints_is_joined_with_what_the_framework_says() -> None:
    printed = [
        "onednn_verbose,v1,info,oneDNN v3.12.0 (commit 80afa71)\n",
        "onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:2\n",
        "onednn_verbose,v1,info,cpu,isa:Intel AVX2\n",
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef\n",
    ]
    assert kernels("AVX2", printed) == "AVX2, oneDNN v3.12.0, Intel AVX2"
    assert kernels("", printed[:1]) == "oneDNN v3.12.0"
    assert kernels("a BLAS", []) == "a BLAS"
    assert kernels("", ["something else\n"]) == "unknown"


def test_a_process_answers_one_question_after_the_other_on_its_cores() -> None:
    details = {"framework": OURS, "mode": "", "network": "lenet5", "jobs": ["inference"], "seconds": 0.001}
    with process(1, "user") as asked:
        answers = [asked.ask("measure", batch=batch, **details) for batch in (1, 2)]
    assert all(isinstance(answer, dict) and answer["inference"]["samples"] >= 5 for answer in answers)


def test_the_cost_is_that_of_the_ledger() -> None:
    lenet = cost("lenet5", 3)
    assert lenet.training == summary(Network(MODELS["lenet5"](), (1, 28, 28)), 3).flops
    assert 0 < lenet.inference < lenet.training
    assert (lenet.of("training"), lenet.of("inference")) == (lenet.training, lenet.inference)


@pytest.mark.slow
def test_a_small_run_writes_and_prints_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    options = ["--against", "none", "--networks", "lenet5", "--batches", "1", "--cores", "1"]
    script = [sys.executable, "-W", "error", str(SCRIPTS / "benchmark.py")]
    done = subprocess.run(
        [*script, *options, "--rounds", "1", "--seconds", "0.01", "--json", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    measured = Results.read(path)
    assert [(pair.job, pair.work, pair.peer) for pair in measured.pairs] == [
        ("training", WORK, None),
        ("inference", WORK, None),
    ]
    assert all(pair.ours.median > 0 for pair in measured.pairs)
    assert [(told.framework, told.cores) for told in measured.speeds] == [(OURS, 1)]
    again = subprocess.run([*script, "--report", str(path)], capture_output=True, text=True)
    assert again.stdout == done.stdout


@pytest.mark.slow
def test_a_peer_is_measured_right_after_us(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("onnxruntime")
    options = ["--networks", "lenet5", "--batches", "2", "--cores", "1", "--rounds", "2", "--seconds", "0.01"]
    path = tmp_path / "results.json"
    assert benchmark.main(["--against", "onnxruntime", "--allocator", "tuned", *options, "--json", str(path)]) == 0
    peer = Subject("onnxruntime", "session", "tuned")
    assert [(pair.job, pair.peer) for pair in Results.read(path).pairs] == [("inference", peer)] * 2
    text = capsys.readouterr().out
    assert "**Inference, batch 2, 1 core, allocator tuned**" in text
    assert "- Kernels of onnxruntime: unknown" in text


@pytest.mark.slow
def test_a_cold_start_and_a_point_of_growth_are_measured() -> None:
    (start,) = cold_start.starts(["lowered_cnn"], rounds=1, cores=1, environment="user")
    assert 0 < start.import_seconds < start.first_prediction
    with process(1, "user") as asked:
        told = asked.ask("growth", axis="side", size=28, seconds=0.01)
    assert isinstance(told, dict)
    assert told["batch"] == growth.IMAGES
    assert told["workspace"] > 0


def test_the_installed_size_counts_what_is_depended_on() -> None:
    ours = cold_start.installed("lowered_cnn")
    assert ours.bytes > cold_start.installed("numpy").bytes > 10_000_000


def test_a_process_that_fails_is_told_in_its_last_line() -> None:
    with process(1, "user") as asked:
        for _ in range(2):
            with pytest.raises(ProcessError, match=r"^KeyError: 'no network'$"):
                asked.ask("measure", framework=OURS, mode="", network="no network", batch=1, jobs=[], seconds=1)


def test_a_peer_that_fails_is_left_out_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The peer is one that no process knows, so that the first question ends it."""
    monkeypatch.setattr(benchmark, "PEERS", (Known("numpy", ("fast",), jobs=("inference",)),))
    options = [
        "--jobs",
        "inference",
        "--allocator",
        "installed",
        "--networks",
        "lenet5",
        "--batches",
        "2,1",
        "--cores",
        "1",
    ]
    path = tmp_path / "results.json"
    assert benchmark.main([*options, "--rounds", "2", "--seconds", "0.01", "--json", str(path)]) == 0
    speed_line, line = Results.read(path).failures
    assert speed_line == "numpy, its speed: ModuleNotFoundError: No module named 'benchmarking.with_numpy'"
    assert line.startswith("numpy, fast, allocator installed; lenet5, batch 1, 1 core: ModuleNotFoundError")
    assert f"- Left out: {line}" in capsys.readouterr().out.splitlines()


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the benchmark, which must fail: exit code 2, nothing on stdout, one line on stderr, which is returned."""
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    output = capsys.readouterr()
    assert (stop.value.code, output.out, output.err.count("\n")) == (2, "", 1)
    return output.err.rstrip("\n")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--against", "caffe"], "argument --against: expected one of torch, tensorflow, jax, onnxruntime, none, got"),
        (["--networks", "resnet"], "argument --networks: expected one of compact, lenet5,"),
        (["--batches", "1,0"], "argument --batches: expected a whole number of at least 1, got '0'"),
        (["--cores", "100000"], "argument --cores: expected a whole number from 1 to "),
        (["--report", "nowhere.json"], "No such file or directory: 'nowhere.json'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in fails(options, capsys)


def test_a_peer_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "PEERS", (Known("torch", (), needs=("no_such_module",)),))
    line = fails(["--against", "torch"], capsys)
    assert line == "benchmark: torch is not installed (pip install 'lowered-cnn[bench]')"


def need(framework: str) -> None:
    """Skip the test where a framework, or what it needs, is not installed."""
    for module in next((framework, *peer.needs) for peer in PEERS if peer.name == framework):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def our_outputs(network: Network, batch: int, steps: int) -> Array:
    """Train on the floats that the peers train on, without the training loop, which takes bytes; then predict."""
    ours = with_lowered_cnn.Measured(network, Setting("package", batch, 1))
    update = OPTIMIZER.over(network.parameters)
    for images, labels in itertools.islice(zip(ours.images(), ours.labels(), strict=True), steps):
        update.step(network.gradient(images, labels).parameters)
    return ours.predict(ours.images(1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", ["lenet5", "pytorch_mnist"])
@pytest.mark.parametrize(("peer", "mode"), [(peer, mode) for peer in PEERS for mode in peer.modes])
def test_peers_compute_what_we_compute(peer: Known, mode: str, name: str, steps: int) -> None:
    need(peer.name)
    if steps and "training" not in peer.jobs:
        pytest.skip(f"{peer.name} does not train")
    network = Network(MODELS[name](), INPUT_SHAPE)
    network.parameters.vector += BIAS
    with process(1, "user", peer.name) as asked:
        told = asked.ask("trained_outputs", framework=peer.name, mode=mode, network=name, batch=4, steps=steps)
    assert_close(np.array(told), our_outputs(network, 4, steps), 1e-4)


def test_layers_that_peers_have_not_are_refused() -> None:
    uneven = Network(Sequential(Conv2D(2, 2, padding="same")), INPUT_SHAPE)
    (place,) = placed(uneven)
    assert isinstance(place.layer, Conv2D)
    with pytest.raises(InputError, match="padding: expected the same before and after"):
        sides(place.layer.sweep(place.input_shape, place.name))
    (place,) = placed(Network(Sequential(MaxPool(3, 2)), INPUT_SHAPE))
    with pytest.raises(InputError, match="a pool without padding"):
        pool_size(place)


def test_weights_with_channels_last_belong_to_features_with_channels_last() -> None:
    network = Network(Sequential(Conv2D(2, 3), Flatten(), Dense(5)), (3, 4, 4), dtype=np.float64)
    conv, _, dense = placed(network)
    x = np.random.default_rng(0).random((1, 3, 4, 4))
    maps = sliding_window_view(x[0].transpose(1, 2, 0), (3, 3), (0, 1))
    z = np.einsum("hwcab,abck->hwk", maps, conv.kernel)
    assert_close(network.predict(x)[0], z.reshape(-1) @ dense.kernel)
