"""Networks drawn at random pass the certificate, and what a norm once left in Winograd's gradient stays mended."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import normal

from lowered_cnn import Network, SoftmaxCrossEntropy
from lowered_cnn.arrays import Array
from lowered_cnn.cli import main
from lowered_cnn.fusion.winograd import WinogradEngine
from lowered_cnn.layers import Layer
from lowered_cnn.models import deep
from lowered_cnn.verify import Certificate, Check, verify_sampled
from lowered_cnn.verify.agreement import SMALL_BLOCKS, workers_check
from lowered_cnn.verify.probe import Probe
from lowered_cnn.verify.sampled import draw

SEEDS = st.integers(0, 2**32)


# A norm before a convolution whose last row and column the pool drops: `deep` on 29 x 29.


def digits_padded_by_one(dtype: Any = np.float32) -> Probe:
    images = normal(4, 1, 29, 29).astype(dtype)
    return Probe(Network(deep(), (1, 29, 29), dtype=dtype), SoftmaxCrossEntropy(), images, np.arange(4))


def gradient(probe: Probe, *, fused: bool) -> Array:
    lowered = probe.lower(fused=fused)
    probe.results(lowered)
    return lowered.gradients.vector.copy()


def test_training_learns_from_the_gradients_of_the_plain_form() -> None:
    probe = digits_padded_by_one()
    lowered, weights = probe.lower(fused=True), probe.network.parameters.vector
    for step in range(1, 21):
        probe.results(lowered)
        found = lowered.gradients.vector
        if step in (1, 2, 20):
            plain = gradient(probe, fused=False)
            assert np.abs(found - plain).max() < 1e-4 * np.abs(plain).max()
        weights -= 0.01 * found


@pytest.mark.slow
def test_one_and_two_workers_train_it_to_the_same_bits() -> None:
    assert workers_check(digits_padded_by_one().network, SoftmaxCrossEntropy(), (1, 2)).passed


def test_one_batch_of_nan_does_not_stay() -> None:
    probe = digits_padded_by_one()
    lowered = probe.lower(fused=True)
    with np.errstate(invalid="ignore"):
        Probe(probe.network, probe.loss, np.full_like(probe.images, np.nan), probe.targets).results(lowered)
    assert np.isnan(lowered.gradients.vector).any()
    probe.results(lowered)
    np.testing.assert_array_equal(lowered.gradients.vector, gradient(probe, fused=True))


# Networks drawn at random.


@given(SEEDS)
@settings(max_examples=5)
def test_a_network_drawn_at_random_passes(seed: int) -> None:
    certificate = verify_sampled(seed)
    assert certificate.passed, f"{certificate}\n{draw(seed)}"


@pytest.mark.slow
@given(SEEDS)
@settings(max_examples=25)
def test_many_networks_drawn_at_random_pass(seed: int) -> None:
    certificate = verify_sampled(seed)
    assert certificate.passed, f"{certificate}\n{draw(seed)}"


@given(SEEDS)
@settings(max_examples=20)
def test_a_seed_draws_the_same_network_each_time(seed: int) -> None:
    assert draw(seed) == draw(seed)
    assert str(draw(seed)).startswith("Specimen(model=Sequential(")


def used(layer: Any) -> set[str]:
    inside = [getattr(layer, name) for name in ("layers", "body", "shortcut") if hasattr(layer, name)]
    nested = [each for part in inside for each in (part if isinstance(part, tuple) else (part,))]
    return {type(layer).__name__}.union(*map(used, nested))


def test_every_layer_is_drawn() -> None:
    def kinds(layer: Any) -> set[Any]:
        return set().union(*map(kinds, layer.__subclasses__())) or {layer}

    drawn: set[str] = set().union(*(used(draw(seed).model) for seed in range(400)))
    ours = {kind.__name__ for kind in kinds(Layer) if kind.__module__.startswith("lowered_cnn.layers.")}
    assert ours - drawn == set()


def test_what_winograd_does_not_see_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []
    original = WinogradEngine.finish

    def finish(engine: WinogradEngine) -> Array | None:
        dropped.append(engine.gradient.unseen(engine.dx)[0].size > 0)
        return original(engine)

    monkeypatch.setattr(WinogradEngine, "finish", finish)
    for seed in range(100):
        specimen = draw(seed)
        network = Network(specimen.model, specimen.input_shape)
        probe = Probe(network, SoftmaxCrossEntropy(), np.zeros((1, *specimen.input_shape)), np.zeros(1, np.int64))
        probe.results(probe.lower(fused=True, block_bytes=SMALL_BLOCKS))
    assert any(dropped)
    assert not all(dropped)


def test_the_command_draws_networks_and_prints_those_that_fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}

    def few(samples: int, seed: int) -> Any:
        asked.update(samples=samples, seed=seed)
        yield "sampled 7", Certificate((Check("sampled", "conv1", "dx", 0.0, 1e-12),))
        yield "sampled 8", Certificate((Check("sampled 8", "conv1", "dx", 1.0, 1e-12),))

    monkeypatch.setattr("lowered_cnn.cli.verify.verify_all", few)
    assert main(["verify", "--samples", "2", "--seed", "7"]) == 1
    assert asked == {"samples": 2, "seed": 7}
    printed = capsys.readouterr()
    assert "sampled 8: conv1: dx: expected an error of at most 1.0e-12, got 1.0e+00" in printed.out
    assert printed.err == f"sampled 8: {draw(8)}\n"


def test_a_network_that_fails_is_named_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Certificate((Check("sampled", "conv1", "dx", 1.0, 1e-12),))
    monkeypatch.setattr("lowered_cnn.verify.verify_specimen", lambda name, specimen: failed)
    assert [check.subject for check in verify_sampled(8).failures] == ["sampled 8"]

    def broken(name: str, specimen: object) -> Certificate:
        raise ValueError("could not broadcast")

    monkeypatch.setattr("lowered_cnn.verify.verify_specimen", broken)
    with pytest.raises(ValueError, match="could not broadcast") as raised:
        verify_sampled(8)
    assert raised.value.__notes__ == [f"sampled 8: {draw(8)}"]
