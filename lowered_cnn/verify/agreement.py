"""Forms of one network that must agree: fused or not, in blocks or not, in both precisions, with any number of workers.

Sums in another order differ by rounding only. A sum of n terms has a backward error of at most 8 sqrt(n) u, with a
probability of practically 1 (Higham and Mary, 2019). How much a relative change of all numbers changes a result is
measured, by making one. The product of the two is the bound.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.data.dataset import Dataset
from lowered_cnn.gemm import listen
from lowered_cnn.layers import Concatenate, Dense, Flatten, GlobalMaxPool, MaxPool, ReLU, Residual
from lowered_cnn.layers.container import stages_of
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.layer import is_stock
from lowered_cnn.losses import Loss, loss_and_gradient
from lowered_cnn.network import LoweredNetwork, Network
from lowered_cnn.training import Recipe, train
from lowered_cnn.verify.certificate import Check, worst
from lowered_cnn.verify.differences import UNIT_ROUNDOFF
from lowered_cnn.verify.losses import targets_for
from lowered_cnn.verify.probe import NOISE, Probe, sides
from lowered_cnn.workspace import BLOCK_BYTES

SMALL_BLOCKS = 4096
"""Bytes of a block: few enough to split the columns of every convolution."""

LARGE = 1e30
"""Images are multiplied by minus this for a step that must leave nothing behind."""

PERTURBATION = 2.0**-30

FLOAT32_ROUNDOFF = 2.0**-24

EXACT = (Conv, Dense, ReLU, MaxPool, GlobalMaxPool, Flatten, Residual, Concatenate)

TRIES = 20
"""How many batches are tried for one so far from all kinks that both precisions fall on the same side of each."""

TRAINED_ON = 96
"""Examples in the batch, a shard for each of three workers."""


def agreement_checks(probe: Probe) -> Iterator[Check]:
    """Compare the forms of a step with the plainest one: unfused, with one matrix product per convolution."""
    with listen() as products:
        plain = probe.results(probe.lower(block_bytes=None)).arrays()
    terms = sum(product.k for product in products) + 8
    sensitivity = _sensitivity(probe, plain)
    for prop, lowered in (
        ("blocked", probe.lower(block_bytes=SMALL_BLOCKS)),
        ("fused", probe.lower(fused=True)),
        ("fused", probe.lower(fused=True, block_bytes=SMALL_BLOCKS)),
    ):
        found = probe.results(lowered).arrays()
        yield _compared(prop, plain, found, sensitivity, terms * UNIT_ROUNDOFF**2)
    yield from repeated_checks(probe)
    yield from _ties(probe)
    yield _inference(probe, terms)
    yield _float32(probe, terms)


def workers_check(network: Network, loss: Loss, workers: Sequence[int]) -> Check:
    """Count the bytes in which weights differ after three steps with different numbers of workers."""
    generator = np.random.default_rng(0)
    images = generator.random((TRAINED_ON, *network.input_shape), np.float32)
    classes = network.output_shape[0]
    data = Dataset(images, targets_for(loss, generator.integers(classes, size=TRAINED_ON), classes))
    recipe = Recipe(epochs=3, batch_size=TRAINED_ON, loss=loss, shard_size=TRAINED_ON // 3)
    trained = []
    for count in workers:
        copy = Network(network.model, network.input_shape, dtype=network.parameters.vector.dtype)
        copy.parameters.vector[...] = network.parameters.vector
        for _ in train(copy, data, recipe, workers=count):
            pass
        trained.append(copy.parameters.vector.view(np.uint8))
    different = sum(int(np.sum(one != other)) for one, other in itertools.pairwise(trained))
    return Check("network", "network", "workers", different, 0.0)


def repeated_checks(probe: Probe) -> Iterator[Check]:
    """Repeat the first step of each form after steps with NaN and large numbers: it must give the same bits.

    No buffer may carry anything over from an earlier step.
    """
    modes = {
        "training": (True, False),
        "training, dX too": (True, True),
        "inference": (False, False),
        "inference, dX too": (False, True),
    }
    for fused, block_bytes in itertools.product((False, True), (BLOCK_BYTES, SMALL_BLOCKS)):
        for mode, (training, wants_dx) in modes.items():
            lowered = probe.network.lower(
                probe.examples, training=training, wants_dx=wants_dx, seed=1, fused=fused, block_bytes=block_bytes
            )
            first = _written(probe, lowered)
            for images in (np.full_like(probe.images, np.nan), -LARGE * probe.images):
                _written(replace(probe, images=images), lowered)
            different = np.sum(_written(probe, lowered) != first)
            form = f"{'fused' if fused else 'plain'}, blocks of {block_bytes} bytes, {mode}"
            yield Check("network", form, "repeated", float(different), 0.0)


def _written(probe: Probe, lowered: LoweredNetwork) -> Array:
    """Take a step, and return all numbers that it computes: the outputs and, where wanted, the gradients."""
    outputs = lowered.forward(probe.images, position=NOISE).copy()
    gradients, dx = lowered.gradients.vector, None
    if len(gradients):
        total = probe.loss.total(probe.targets)
        dx = lowered.backward(loss_and_gradient(probe.loss, outputs, probe.targets, total)[1])
    return np.concatenate([outputs.ravel(), gradients, np.empty(0) if dx is None else dx.ravel()])


def _ties(probe: Probe) -> Iterator[Check]:
    """Compare fused with unfused on small integers, where nothing is rounded and ties are common: the bits must agree.

    Networks that do more than multiply, add and take maxima leave the integers, and are skipped.
    """
    if not all(isinstance(stage.layer, EXACT) and is_stock(stage.layer) for stage in stages_of(probe.lower().layers)):
        return
    whole = probe.in_precision(np.float64)
    generator = np.random.default_rng(2)
    for values in (whole.network.parameters.vector, whole.images):
        values[...] = generator.integers(-1, 1, values.shape, endpoint=True)
    found: list[Array] = []
    for fused in (False, True):
        lowered = whole.lower(fused=fused)
        z = lowered.forward(whole.images, position=NOISE)
        dx = lowered.backward(np.resize([1.0, -2.0, 3.0], z.shape[::-1]).T)
        assert dx is not None
        found.append(np.concatenate([z.ravel(), dx.ravel(), lowered.gradients.vector]))
    yield Check("network", "network", "tie rule", float(np.sum(found[0] != found[1])), 0.0)


def _sensitivity(probe: Probe, plain: dict[str, Array]) -> dict[str, float]:
    """Return how much each result would change, to first order, if all parameters and images changed by 100 %."""
    moved = probe.in_precision(np.float64)
    generator = np.random.default_rng(1)
    for values in (moved.network.parameters.vector, moved.images):
        values *= 1 + PERTURBATION * generator.choice([-1.0, 1.0], values.shape)
    there = moved.results(moved.lower(block_bytes=None)).arrays()
    changes = {name: float(np.abs(there[name] - plain[name]).max()) / PERTURBATION for name in plain}
    # Terms that cancel leave their rounding errors: no gradient is more accurate than the largest one on the way.
    floor = max(changes[name] + float(np.abs(plain[name]).max()) for name in plain if name != "outputs")
    floor = max(floor, *(float(np.abs(each.dy).max()) for each in probe.passages().values() if each.dy is not None))
    return {name: change if name == "outputs" else max(change, floor) for name, change in changes.items()}


def _compared(
    prop: str, plain: dict[str, Array], found: dict[str, Array], sensitivity: dict[str, float], square: float
) -> Check:
    """Compare all results, within 8 sqrt(n) u = 8 sqrt(`square`) times their sensitivity, and return the worst."""
    errors = {name: float(np.abs(found[name] - plain[name]).max()) for name in plain}
    bounds = {name: 8 * np.sqrt(square) * sensitivity[name] for name in plain}
    return worst(Check("network", name, prop, errors[name], float(bounds[name])) for name in plain)


def _inference(probe: Probe, terms: int) -> Check:
    """Compare the fused form for inference, with batch normalization folded, with the plain one."""

    def outputs(probe: Probe, *, fused: bool) -> Array:
        lowered: LoweredNetwork = probe.network.lower(probe.examples, training=False, fused=fused)
        return lowered.forward(probe.images).copy()

    plain = outputs(probe, fused=False)
    moved = probe.in_precision(np.float64)
    vector = moved.network.parameters.vector
    vector *= 1 + PERTURBATION * np.random.default_rng(1).choice([-1.0, 1.0], len(vector))
    change = float(np.abs(outputs(moved, fused=False) - plain).max()) / PERTURBATION + float(np.abs(plain).max())
    error = float(np.abs(outputs(probe, fused=True) - plain).max())
    return Check("network", "outputs", "inference", error, float(8 * np.sqrt(terms) * UNIT_ROUNDOFF * change))


def _float32(probe: Probe, terms: int) -> Check:
    """Compare float32 with float64, on a batch for which both are on the same side of every kink.

    If there is no such batch, for example where a maximum has exact ties, only the outputs are compared: they are
    continuous there, and gradients are not.
    """
    for number in range(TRIES):
        images = np.random.default_rng(number).standard_normal(probe.images.shape).astype(np.float32)
        single = replace(probe, images=images).surprised().in_precision(np.float32)
        double = single.in_precision(np.float64)
        plain, found = (each.results(each.lower()).arrays() for each in (double, single))
        if _sides(single) == _sides(double):
            break
    else:
        plain, found = ({"outputs": each["outputs"]} for each in (plain, found))
    sensitivity = _sensitivity(double, double.results(double.lower(block_bytes=None)).arrays())
    return _compared("float32", plain, found, sensitivity, terms * FLOAT32_ROUNDOFF**2)


def _sides(probe: Probe) -> bytes:
    lowered = probe.lower()
    probe.value(lowered)
    return sides(lowered.layers)
