"""The gradient certificate: every layer of a network, in all its forms, checked on the spot by independent means."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape
from lowered_cnn.layers import Layer
from lowered_cnn.losses import ElementwiseLoss, Loss, MeanSquaredError, SoftmaxCrossEntropy
from lowered_cnn.models import MODELS
from lowered_cnn.network import Network, check_network
from lowered_cnn.training.workers import POSIX
from lowered_cnn.verify.agreement import agreement_checks, workers_check
from lowered_cnn.verify.certificate import Certificate, Check
from lowered_cnn.verify.layers import Reference, layer_checks
from lowered_cnn.verify.losses import loss_checks, targets_for
from lowered_cnn.verify.probe import Probe
from lowered_cnn.verify.sampled import draw
from lowered_cnn.verify.specimens import CLASSES, LOSSES, Specimen, in_the_middle, specimens, together

__all__ = ["Certificate", "Check", "verify", "verify_all", "verify_forms", "verify_layer", "verify_sampled"]

WORKERS = (1, 2, 3) if POSIX else ()

SAMPLES = 20
"""How many networks `verify_all` draws at random."""

MOVED = 0.05
"""The most that a parameter is moved: a bias of 0 puts a ReLU on its kink, and a missing one would go unnoticed."""


def verify(network: Network, *, loss: Loss = SoftmaxCrossEntropy(), workers: Sequence[int] = WORKERS) -> Certificate:
    """Check a network on random images, its parameters moved a little: in float64, except for the last two checks.

    For each layer: `forward` against loops; `dx`, `dweight`, `dbias` against finite differences with a derived bound;
    `adjoint`, <M x, c> = <x, M^T c> to the last bit for its index maps; `subgradient` and `tie rule` at its kinks;
    `statistics`, for BatchNorm; `inference`, for layers that then compute something else.
    For the network: the `blocked` and `fused` forms and fused `inference` against the plain form; each form `repeated`
    to the same bits after steps with NaN and with large numbers; `float32` against float64; and `workers`, the same
    bits for each number of them. Several workers start processes, so a script calls this under
    `if __name__ == "__main__":`.

    Raises InputError unless the network has outputs (features), one for each class.
    """
    check_network("verify: network", network)
    if len(network.output_shape) != 1:
        raise InputError("verify: network", "outputs (features)", network.output_shape)
    certificate = _checked(network, loss)
    if len(workers) > 1:
        certificate += Certificate((workers_check(network, loss, workers),))
    return certificate


def verify_forms(network: Network, *, loss: Loss = SoftmaxCrossEntropy()) -> Certificate:
    """Check that the forms of a network agree, as `verify` does, but not each layer by itself; this takes seconds.

    It finds faults that need this network and its shapes, between layers that are right by themselves.
    """
    with np.errstate(all="ignore"):
        return Certificate(tuple(agreement_checks(_probe(network, loss, Specimen.examples))))


def verify_layer(layer: Layer, input_shape: Shape, reference: Reference | None = None) -> Certificate:
    """Check one layer in the middle of a small network, as `verify` does, except for the workers.

    `input_shape` is that of the network, (features) or (channels, *size); the layer gets inputs (features) or
    (4 channels, *size). `reference` is for `forward`: it computes y (*shape, N) in another way, from x (C, *size, N)
    and the layer's parameters by name. Layers of this package have their own.
    """
    specimen = in_the_middle(layer, input_shape)
    name = f"{layer.kind}{1 + (layer.kind == specimen.model.layers[0].kind)}"
    references = {} if reference is None else {name: reference}
    return _checked(_network(specimen), references=references)


def verify_sampled(seed: int) -> Certificate:
    """Check a network drawn at random, the same one for the same seed; if it fails, the certificate names the seed."""
    specimen = draw(seed)
    try:
        certificate = verify_specimen("sampled", specimen)
    except Exception as error:
        error.add_note(f"sampled {seed}: {specimen}")
        raise
    return certificate if certificate.passed else _named(f"sampled {seed}", certificate)


def verify_all(*, samples: int = SAMPLES, seed: int = 0) -> Iterator[tuple[str, Certificate]]:
    """Yield the names and certificates of every layer with every option, every loss and every named network.

    `samples` networks drawn at random follow, with the seeds from `seed` on.
    """
    for name, specimen in specimens().items():
        yield name, verify_specimen(name, specimen)
    for name, loss in LOSSES.items():
        yield name, verify_loss(name, loss)
        row = f"all layers, {name}"
        yield row, _named(row, verify(_network(together()), loss=loss))
    for name, model in MODELS.items():
        yield name, _named(name, verify(Network(model(), (1, 28, 28))))
    for each in range(seed, seed + samples):
        yield f"sampled {each}", verify_sampled(each)


def verify_specimen(name: str, specimen: Specimen) -> Certificate:
    """Check one specimen; all its layers share one row of the table, under its name."""
    return _named(name, _checked(_network(specimen), examples=specimen.examples))


def verify_loss(name: str, loss: Loss) -> Certificate:
    """Check one loss: for class numbers, for values from 0 to 1 or maps of class numbers, and with weights."""
    generator = np.random.default_rng(4)
    z, labels, weights = 3 * generator.standard_normal((6, CLASSES)), np.array([2, 0, 1, 1, 0, 2]), generator.random(6)
    checks = [*loss_checks(loss, z, targets_for(loss, labels, CLASSES))]
    if isinstance(loss, SoftmaxCrossEntropy):
        maps = 3 * generator.standard_normal((6, CLASSES, 2, 2))
        numbers = generator.integers(0 if loss.ignore is None else loss.ignore, CLASSES, (6, 2, 2))
        checks += loss_checks(loss, maps, numbers)
        checks += loss_checks(loss, maps, numbers, weights)
    elif isinstance(loss, MeanSquaredError | ElementwiseLoss):
        checks += loss_checks(loss, z, generator.random(z.shape))
        checks += loss_checks(loss, z, generator.random(z.shape), weights)
    return _named(name, Certificate(tuple(checks)))


def _network(specimen: Specimen) -> Network:
    return Network(specimen.model, specimen.input_shape, seed=1, dtype=np.float64)


def _checked(
    network: Network,
    loss: Loss = SoftmaxCrossEntropy(),
    references: dict[str, Reference] | None = None,
    examples: int = Specimen.examples,
) -> Certificate:
    with np.errstate(all="ignore"):  # NaN and infinity fail the checks, which show them
        probe = _probe(network, loss, examples)
        return Certificate((*layer_checks(probe, references or {}), *agreement_checks(probe)))


def _probe(network: Network, loss: Loss, examples: int) -> Probe:
    generator = np.random.default_rng(3)
    images: Array = generator.standard_normal((examples, *network.input_shape))
    labels = np.zeros(examples, np.int64)
    probe = Probe(network, loss, images, labels).in_precision(np.float64)
    parameters = probe.network.parameters.vector
    parameters += MOVED * generator.random(parameters.shape)
    return probe.surprised()


def _named(name: str, certificate: Certificate) -> Certificate:
    return Certificate(tuple(replace(check, subject=name) for check in certificate.checks))
