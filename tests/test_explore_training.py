"""The training that the page controls: one at a time, the same as any other, and its steps can be looked at."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorers import Explorer, exploring, pack, unpack
from hypothesis import given
from hypothesis import strategies as st
from programs import eventually
from trainings import DATA, DEV, MODEL, SHAPE

from lowered_cnn import (
    SGD,
    Conv2D,
    Dense,
    Flatten,
    InputError,
    Network,
    Recipe,
    Sequential,
    SoftmaxCrossEntropy,
    Training,
    fit,
    load,
    load_mnist,
    softmax,
)
from lowered_cnn.explore.live import MEASURED, ConflictError, LiveTraining
from lowered_cnn.explore.snapshots import FIRST, MOST, RECENT, Snapshot, Snapshots
from lowered_cnn.training.checkpoint import read_state

pytestmark = pytest.mark.slow  # each test trains

STEPS_PER_EPOCH = math.ceil(550 / 32)


@pytest.fixture
def live() -> Iterator[LiveTraining]:
    """Return a training of a small network with Dropout and BatchNorm."""
    recipe = Recipe(epochs=2, batch_size=32, optimizer=SGD(0.05, momentum=0.9), seed=3)
    training = LiveTraining(Network(MODEL, SHAPE), DATA, DEV, recipe)
    yield training
    training.close()


def records_of(live: LiveTraining) -> list[Any]:
    progress: Any = live.overview()
    return list(progress["records"])


def ended(live: LiveTraining) -> bool:
    return eventually(lambda: not live.is_running)


def test_the_page_trains_the_run_again_to_the_same_weights(explorer: Explorer, run: Path, few_digits: Path) -> None:
    """A fresh network of the same model, on the same data, by the same recipe: what the command line has trained."""
    progress = explorer.trained()
    assert progress["state"] == "finished"
    assert progress["steps_total"] == 2 * STEPS_PER_EPOCH
    found, expected = explorer.get("/api/network"), load(run / "model.safetensors")
    assert found["step"] == progress["steps"][-1] == 2 * STEPS_PER_EPOCH
    for name in expected.parameters:
        assert np.array_equal(unpack(found["weights"][name]), expected.parameters[name])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record, line in zip(progress["records"], lines, strict=True):
        for name in (
            "step",
            "epoch",
            "loss",
            "train_accuracy",
            "learning_rate",
            "ends_epoch",
            "epoch_loss",
            "dev_loss",
        ):
            assert record[name] == line[name]
        assert record["dev_accuracy"] == line["dev_accuracy"]


def test_it_takes_epochs_and_a_learning_rate(explorer: Explorer, run: Path) -> None:
    progress = explorer.trained(epochs=1, learning_rate=0.01)
    recipe = read_state(run / "checkpoint.safetensors").subject.recipe
    assert isinstance(recipe.optimizer, SGD)
    recipe = replace(recipe, epochs=1, optimizer=replace(recipe.optimizer, learning_rate=0.01))
    assert (progress["epochs"], progress["steps_total"]) == (1, STEPS_PER_EPOCH)
    rates = [record["learning_rate"] for record in progress["records"]]
    assert rates == [recipe.learning_rate(step, 550, []) for step in range(STEPS_PER_EPOCH)]


def test_any_kept_step_can_be_looked_at(explorer: Explorer, run: Path, few_digits: Path) -> None:
    progress = explorer.trained(epochs=1)
    image = load_mnist().test.images[0]
    recipe = replace(read_state(run / "checkpoint.safetensors").subject.recipe, epochs=1)
    network = Network(load(run / "model.safetensors").model, (1, 28, 28), seed=recipe.seed)
    data, _ = load_mnist().train.take(np.arange(600)).split(50, recipe.seed)
    assert progress["steps"][:3] == [0, 1, 2]
    with Training(network, data, recipe) as training:
        for step in range(3):
            body = {"image": pack(image), "step": step}
            expected = softmax(network.predict(image[None]))[0]
            assert np.array_equal(unpack(explorer.post("/api/predict", body)["probabilities"]), expected)
            assert explorer.get(f"/api/network?step={step}")["step"] == step
            traced = explorer.post("/api/trace", {**body, "label": 7})
            np.testing.assert_allclose(unpack(traced["probabilities"]), expected, rtol=1e-5)
            nudge = {**body, "label": 7, "parameter": "dense2.bias", "index": 7}
            found = explorer.post("/api/nudge", nudge)["gradient"]
            assert found == pytest.approx(float(expected[7]) - 1, rel=1e-4)
            next(training)


def test_two_clients_cannot_start_it_twice(explorer: Explorer) -> None:
    def start(_: int) -> int:
        return explorer.send("/api/training", {"action": "start", "epochs": 20}).status

    for _ in range(3):
        with ThreadPoolExecutor(12) as clients:
            assert Counter(clients.map(start, range(12))) == {200: 1, 409: 11}
        assert explorer.post("/api/training", {"action": "stop"})["state"] == "stopped"


def test_clients_are_answered_rightly_while_it_runs(explorer: Explorer, run: Path) -> None:
    images = load_mnist().test.images[:40]
    trained = load(run / "model.safetensors")
    network = Network(trained.model, (1, 28, 28), seed=read_state(run / "checkpoint.safetensors").subject.recipe.seed)
    explorer.post("/api/training", {"action": "start", "epochs": 20})
    assert eventually(lambda: explorer.get("/api/training?after=0")["records"] != [])

    def is_right(number: int) -> bool:
        found = explorer.post("/api/predict", {"image": pack(images[number]), "step": 0})
        return np.array_equal(unpack(found["probabilities"]), softmax(network.predict(images[[number]]))[0])

    with ThreadPoolExecutor(40) as clients:
        assert all(clients.map(is_right, range(40)))
    assert explorer.state() in ("running", "finished")
    if explorer.state() == "running":
        explorer.send("/api/training", {"action": "stop"})


def test_it_is_paused_resumed_and_stopped(explorer: Explorer) -> None:
    def does(action: str) -> str:
        answer = explorer.send("/api/training", {"action": action, **({"epochs": 20} if action == "start" else {})})
        return answer.json["state"] if answer.status == 200 else f"{answer.status} {answer.error}"

    def steps() -> int:
        return max((record["step"] for record in explorer.get("/api/training?after=0")["records"]), default=0)

    assert does("start") == "running"
    assert does("resume").startswith("409 training: resume: expected one that is paused, got running")
    assert does("pause") == "paused"
    assert does("pause").startswith("409")
    assert does("start").startswith("409")
    paused = steps()
    assert explorer.state() == "paused"
    assert steps() <= paused + 1  # the step that was under way
    assert does("resume") == "running"
    assert eventually(lambda: steps() > paused + 1)
    assert does("pause") == "paused"
    assert does("stop") == "stopped"
    stopped = steps()
    progress = explorer.get("/api/training?after=0")
    assert progress["steps"][-1] == stopped == progress["records"][-1]["step"]
    for action in ("stop", "pause", "resume"):
        assert does(action).startswith("409")
    assert does("start") == "running"
    assert does("stop") == "stopped"


def test_an_untrained_network_is_trained_on_the_page() -> None:
    with exploring() as explorer:
        before = explorer.get("/api/network")
        assert (before["name"], before["autostart"], before["steps"]) == ("compact", True, [0])
        assert explorer.get("/api/training?after=0")["records"] == []
        explorer.post("/api/training", {"action": "start", "epochs": 1})
        assert not explorer.get("/api/network")["autostart"]
        ledger = explorer.get("/api/ledger")  # not timed while a training takes the cores
        assert {row["forward_seconds"] for row in ledger["rows"]} == {None}
        assert eventually(lambda: len(explorer.get("/api/training?after=0")["records"]) > 20)
        explorer.post("/api/training", {"action": "stop"})
        after = explorer.get("/api/network")
        assert after["test"]["accuracy"] > before["test"]["accuracy"] + 0.2
        assert all(row["forward_seconds"] > 0 for row in explorer.get("/api/ledger")["rows"])


def test_a_training_that_diverges_says_so_and_can_be_started_again(explorer: Explorer) -> None:
    progress = explorer.trained(epochs=20, learning_rate=1e30)
    assert progress["state"] == "failed"
    assert progress["error"].startswith("loss at step")
    assert "\n" not in progress["error"]
    assert explorer.trained(epochs=1)["state"] == "finished"


def test_what_a_training_raises_becomes_its_state(live: LiveTraining, caplog: pytest.LogCaptureFixture) -> None:
    live._data = DATA.take(np.arange(4))
    live._dev = None
    live._network = Network(Sequential(Conv2D(4, 3), Flatten(), Dense(3)), (1, 5, 5))
    live.start()
    assert ended(live)
    found = live.progress(0)
    assert found["state"] == "failed"
    assert str(found["error"]).startswith("data: images: expected")


def test_norms_are_those_of_the_gradient_on_fixed_examples(live: LiveTraining) -> None:
    live.start()
    assert ended(live)
    found: Any = live.progress(0)["norms"]
    assert [each["step"] for each in found] == list(range(9))
    network = live.snapshots.at(8).network
    few = DEV.take(np.arange(min(MEASURED, len(DEV))))
    lowered = network.lower(len(few), training=False, wants_dx=True, fused=False)
    _, dz = SoftmaxCrossEntropy().value_and_gradient(lowered.forward(few.images), few.labels, len(few))
    lowered.backward(dz)
    for name, norm in found[-1]["norms"].items():
        assert norm == pytest.approx(float(np.sqrt(np.sum(lowered.gradients[name] ** 2))), rel=1e-4)


def test_the_live_training_is_fit(live: LiveTraining) -> None:
    live.start()
    assert ended(live)
    network = Network(MODEL, SHAPE, seed=live.recipe.seed)
    records = fit(network, DATA, live.recipe, dev=DEV)
    assert np.array_equal(live.snapshots.at(None).network.parameters.vector, network.parameters.vector)
    found: Any = live.progress(0)["records"]
    assert [record["loss"] for record in found] == [record.loss for record in records]


def test_the_last_step_is_kept_when_it_is_stopped(live: LiveTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Snapshots, "is_due", lambda self, step: step == 0)
    live.start(epochs=100_000)
    assert eventually(lambda: len(records_of(live)) > 2)
    live.stop()
    progress: Any = live.overview()
    assert progress["state"] == "stopped"
    assert progress["steps"] == [0, progress["records"][-1]["step"]]


def test_an_overview_has_few_records_and_the_last(live: LiveTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    live.start()
    assert ended(live)
    for most, steps in ((8, list(range(1, 9))), (7, [2, 4, 6, 8]), (3, [2, 5, 8]), (1, [8])):
        monkeypatch.setattr("lowered_cnn.explore.live.MOST_RECORDS", most)
        found: Any = live.overview()
        assert [record["step"] for record in found["records"]] == steps


def test_records_come_in_parts(live: LiveTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowered_cnn.explore.live.MOST_RECORDS", 3)
    live.start()
    assert ended(live)
    after, steps, norms = 0, list[int](), list[int]()
    while True:
        part: Any = live.progress(after)
        steps += [record["step"] for record in part["records"]]
        norms += [each["step"] for each in part["norms"]]
        if not part["more"]:
            break
        after = steps[-1]
    assert steps == list(range(1, 9))
    assert norms == list(range(9))


def test_only_what_makes_sense_can_be_done(live: LiveTraining) -> None:
    for action in (live.pause, live.resume, live.stop):
        with pytest.raises(ConflictError, match="got idle"):
            action()
    with pytest.raises(InputError, match="learning_rate"):
        live.start(learning_rate=math.inf)
    assert not live.has_begun


@given(st.integers(1, 600), st.booleans())
def test_snapshots_are_few_and_have_the_first_steps_and_the_last(steps: int, is_stopped: bool) -> None:
    network = Network(Sequential(Flatten(), Dense(2)), (1, 1, 1))
    snapshots = Snapshots(network)
    for step in range(1, steps + 1):
        if snapshots.is_due(step):
            snapshots.keep(step, network)
        assert len(snapshots.steps) <= MOST
    if is_stopped:
        snapshots.keep(steps, network)
        assert snapshots.steps[-1] == steps
    kept = snapshots.steps
    assert kept == sorted(kept)
    assert kept[: FIRST + 1] == list(range(min(FIRST, steps) + 1))
    assert len(kept) <= MOST
    assert steps <= MOST or len(kept) >= MOST // 2
    assert len(set(np.diff(kept[FIRST + 1 : -1]).tolist())) <= 1  # evenly spaced between the first and the last


def test_the_snapshots_that_were_asked_for_last_stay_readable() -> None:
    """So that who was told of a step, and saw its network, can go on to ask about it, however fast the training is."""
    network = Network(Sequential(Flatten(), Dense(2)), (1, 1, 1))
    snapshots, asked = Snapshots(network), list[Snapshot]()
    for step in range(1, 400):
        if snapshots.is_due(step):
            snapshots.keep(step, network)
            asked.append(snapshots.at(None if step % 2 else step))
        assert all(snapshots.at(each.step) is each for each in asked[-RECENT:])
    assert not {each.step for each in asked} <= set(snapshots.steps)
    assert len(snapshots.steps) <= MOST
    with pytest.raises(InputError, match="step: expected one of 0, 1, 2"):
        snapshots.at(39)
    anew = snapshots.anew(network)
    assert anew.steps == [0]
    assert anew.at(asked[-1].step) is asked[-1]


def test_a_snapshot_is_a_copy() -> None:
    network = Network(Sequential(Flatten(), Dense(2)), (1, 1, 1))
    snapshots = Snapshots(network)
    snapshots.keep(1, network)
    before = network.parameters.vector.copy()
    network.parameters.vector += 1
    assert np.array_equal(snapshots.at(1).network.parameters.vector, before)
    with pytest.raises(InputError, match="one of 0, 1, got 2"):
        snapshots.at(2)
