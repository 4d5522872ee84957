"""The certificate: every specimen, loss and network passes, and what it says, in tables, JSON and errors."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from running import normal, run

from lowered_cnn import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    InputError,
    Layer,
    MaxPool,
    MeanSquaredError,
    Network,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)
from lowered_cnn.arrays import Array, Mask, Shape
from lowered_cnn.cli import main
from lowered_cnn.layers.activation import Elementwise
from lowered_cnn.layers.container import Container
from lowered_cnn.layers.layer import Lowered, Site
from lowered_cnn.models import MODELS
from lowered_cnn.verify import Certificate, Check, verify, verify_layer, verify_loss, verify_specimen
from lowered_cnn.verify.differences import UNIT_ROUNDOFF, derivative, noise, relative_error, smooth_step
from lowered_cnn.verify.probe import sides
from lowered_cnn.verify.specimens import LOSSES, Specimen, specimens, together

IMAGE: Shape = (2, 6, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", specimens())
def test_every_layer_passes(name: str) -> None:
    certificate = verify_specimen(name, specimens()[name])
    assert certificate.passed, str(certificate)
    assert {"forward", "dx", "dweight", "blocked", "fused", "repeated", "inference", "float32"} <= {
        check.prop for check in certificate.checks
    }


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_passes(name: str) -> None:
    certificate = verify_loss(name, LOSSES[name])
    assert certificate.passed, str(certificate)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compact", "keras_mnist", "deep"])
def test_every_named_network_passes(name: str) -> None:
    certificate = verify(Network(MODELS[name](), (1, 28, 28)))
    assert certificate.passed, str(certificate)
    assert next(check for check in certificate.checks if check.prop == "workers").bound == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_all_layers_together_pass_with_each_loss(name: str) -> None:
    specimen = together()
    certificate = verify(Network(specimen.model, specimen.input_shape), loss=LOSSES[name])
    assert certificate.passed, str(certificate)


def test_every_layer_is_among_the_specimens() -> None:
    def kinds(layer: Any) -> set[Any]:
        return set().union(*map(kinds, layer.__subclasses__())) or {layer}

    def used(layer: Layer) -> set[Any]:
        return {type(layer)}.union(*map(used, layer.inside if isinstance(layer, Container) else ()))

    found = set().union(*(used(specimen.model) for specimen in specimens().values()))
    ours = {kind for kind in kinds(Layer) if kind.__module__.startswith("lowered_cnn.layers.")}
    assert {kind.__name__ for kind in ours - found} == set()
    elsewhere = {kind for kind in ours if kind.__name__.endswith(("1D", "3D"))}
    assert {kind.__name__ for kind in ours - elsewhere - used(together().model)} == set()


# The bounds of finite differences.


def kinked(t: float) -> float:
    """Go up with slope 1, and with slope 3 from 0.0002 on."""
    return t + 2 * max(0.0, t - 2e-4)


@pytest.mark.parametrize(
    ("f", "slope"),
    [(math.sin, 1.0), (math.exp, 1.0), (lambda t: math.log(2 + t), 0.5), (lambda t: 1e3 + 3 * t, 3.0), (kinked, 1.0)],
)
def test_a_derivative_is_off_by_less_than_its_bound(f: Callable[[float], float], slope: float) -> None:
    found = derivative(f)
    assert abs(found.value - slope) <= found.bound
    assert found.bound < 1e-6


def test_the_noise_of_a_function_is_seen() -> None:
    generator = np.random.default_rng(0)
    assert noise(lambda t: math.exp(t) + 1e-7 * generator.uniform(-1, 1)) > 1e-7
    assert noise(math.exp) < 32 * UNIT_ROUNDOFF


def test_steps_stay_on_one_side_of_a_kink() -> None:
    def side(t: float) -> bytes:
        return bytes([t > 1e-5])

    step = smooth_step(side)
    assert 1e-6 < step < 1e-5
    assert smooth_step(lambda t: b"") == 1e-3


def test_kinks_inside_of_branches_are_seen() -> None:
    network = Network(Sequential(Residual(Sequential(Residual(ReLU()))), Dense(2)), (3,), dtype=np.float64)
    lowered = network.lower(1)
    seen = set()
    for x in (1.0, 2.0, -1.0):
        lowered.forward(np.array([[1.0, 1.0, x]]))
        seen.add(sides(lowered.layers))
    assert len(seen) == 2


def test_the_relative_error_of_a_wrong_gradient_is_its_error() -> None:
    at = normal(3, 4)
    assert relative_error(lambda x: float(np.sum(x**2)), at, 2 * at) < 1e-10
    assert relative_error(lambda x: float(np.sum(x**2)), at, 2.02 * at) > 1e-4


# What is said.


def test_a_table_shows_the_worst_check_of_each_kind() -> None:
    certificate = Certificate(
        (
            Check("conv1", "conv1", "dx", 1e-12, 1e-11),
            Check("conv1", "conv1", "dx", 4e-12, 1e-11),
            Check("conv1", "conv1", "adjoint", 0.0, 0.0),
            Check("network", "conv1.weight", "fused", 3e-3, 1e-11),
            Check("network", "network", "workers", 12, 0.0),
            Check("images", "images", "dx", 0.0, 1.0, sharp=False),
            Check("dense1", "dense1", "forward", math.nan, 1e-9),
        )
    )
    assert not certificate.passed
    assert str(certificate).splitlines() == [
        "error / bound  forward     dx  adjoint  fused  workers",
        "------------------------------------------------------",
        "conv1                     40%    exact",
        "network                                  FAIL     FAIL",
        "images                   FAIL",
        "dense1            FAIL",
        "------------------------------------------------------",
        "network: conv1.weight: fused: expected an error of at most 1.0e-11, got 3.0e-03",
        "network: workers: expected an error of at most 0.0e+00, got 1.2e+01",
        "images: dx: expected a tight bound, got 1.0e+00",
        "dense1: forward: expected an error of at most 1.0e-09, got nan",
        "7 checks, 2 of them to the last bit: 4 failed",
    ]
    assert json.loads(json.dumps(certificate.json(), allow_nan=False))["checks"][-1]["error"] is None


def test_a_certificate_of_nothing_does_not_pass() -> None:
    assert not Certificate(()).passed


@pytest.mark.slow
def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "notebook"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"\d+ checks, \d+ of them to the last bit: all hold", printed.out.splitlines()[-1])
    assert printed.err == ""


@pytest.mark.slow
def test_the_command_checks_a_training(few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = tmp_path / "run"
    assert main(["train", "--data", str(few_digits), "--epochs", "1", "--out", str(run_folder)]) == 0
    capsys.readouterr()
    assert main(["verify", str(run_folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"]
    assert {check["part"] for check in told["checks"]} >= {"conv1", "dense2", "images", "network"}


def test_the_command_fails_with_the_certificate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Certificate((Check("conv1", "conv1", "dx", 1.0, 1e-12),))
    monkeypatch.setattr("lowered_cnn.cli.verify.verify", lambda network: failed)
    assert main(["verify", "lenet5"]) == 1
    assert capsys.readouterr().out.endswith("1 checks, 0 of them to the last bit: 1 failed\n")
    assert main(["verify", "lenet5", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_the_command_tells_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "lenet6"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "lowered-cnn verify: RUN|MODEL|all: expected a folder, all, or one of compact, lenet5, caffe_lenet, "
        "keras_mnist, pytorch_mnist, notebook, deep, wide, adaptive, got 'lenet6'\n"
    )


def test_outputs_that_are_maps_are_refused() -> None:
    with pytest.raises(InputError, match=re.escape("verify: network: expected outputs (features), got (2, 3, 3)")):
        verify(Network(Sequential(Conv2D(2, 3)), (1, 5, 5)))


# Layers of one's own.


@dataclass(frozen=True)
class Square(Layer):
    """y = x^2, or, `wrong`, its derivative without the 2."""

    wrong: bool = False

    kind: ClassVar[str] = "square"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        return input_shape

    def lower(self, site: Site) -> Lowered:
        return LoweredSquare(self.wrong)


class LoweredSquare(Lowered):
    def __init__(self, wrong: bool) -> None:
        self.factor = 1 if wrong else 2

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.square(x)

    def backward(self, dy: Array) -> Array:
        return self.factor * self.x * dy


@pytest.mark.parametrize("shape", [(4,), (2, 9), IMAGE, (2, 3, 4, 3)])
def test_a_layer_of_ones_own_is_checked(shape: Shape) -> None:
    right = verify_layer(Square(), shape, reference=lambda x, parameters: x * x)
    assert right.passed, str(right)
    assert any(check.part == "square1" and check.prop == "forward" for check in right.checks)
    wrong = verify_layer(Square(wrong=True), shape)
    assert {(check.part, check.prop) for check in wrong.failures} >= {("square1", "dx")}
    other = verify_layer(Square(), shape, reference=lambda x, parameters: x * x + 1e-9)
    assert [(check.part, check.prop) for check in other.failures] == [("square1", "forward")]


def test_without_a_reference_the_forward_pass_of_ones_own_layer_is_not_checked() -> None:
    checks = verify_layer(Square(), IMAGE).checks
    assert not any(check.part == "square1" and check.prop == "forward" for check in checks)


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_a_network_that_is_sure_of_the_class_is_checked(seed: int) -> None:
    """Its gradients for that class are smaller than the rounding of numbers near 1."""
    network = Network(Sequential(Flatten(), Dense(8), Tanh(), Dense(3)), IMAGE, seed=seed)
    network.parameters["dense2.weight"][...] *= 30
    certificate = verify(network, workers=())
    assert certificate.passed, str(certificate)


def test_a_norm_of_a_single_number_is_checked() -> None:
    model = Sequential(Conv2D(4, 2), GlobalAvgPool(), BatchNorm(), Dense(3))
    certificate = verify_specimen("one", Specimen(model, IMAGE, examples=1))
    assert certificate.passed, str(certificate)
    assert any(check.prop == "statistics" for check in certificate.checks)


# Kinks, and what a loss may do.


def test_the_gradient_of_relu_is_0_at_0() -> None:
    x = np.array([[-1.0, -0.0, 0.0, 5e-324, 1.0]])
    ours = run(ReLU(), x)
    assert ours.y.tolist() == [[0, 0, 0, 5e-324, 1]]
    assert ours.dx.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("last", [ReLU(), MaxPool(2), AvgPool(2), Conv2D(2, 3), Dropout(0.5)])
def test_a_network_may_end_with_any_layer(last: Layer) -> None:
    """The loss must not overwrite the outputs: the last layer may need them in backward."""
    network = Network(Sequential(Conv2D(2, 3, padding="same"), last, Flatten()), IMAGE, dtype=np.float64)
    images, targets = normal(3, *IMAGE), normal(3, *network.output_shape)
    lowered = network.lower(3)

    def gradient_of(z: Array) -> Array:
        lowered.backward(MeanSquaredError().value_and_gradient(z, targets, 3)[1])
        return lowered.gradients.vector.copy()

    expected = gradient_of(lowered.forward(images, position=(0,)).copy())
    np.testing.assert_array_equal(gradient_of(lowered.forward(images, position=(0,))), expected)


def test_a_network_is_checked_with_its_own_loss_and_parameters() -> None:
    network = Network(Sequential(Flatten(), Dense(4), ReLU(), Dense(3)), IMAGE)
    before = network.parameters.vector.copy()
    for loss in (SoftmaxCrossEntropy(0.1), MeanSquaredError()):
        assert verify(network, loss=loss, workers=()).passed
    np.testing.assert_array_equal(network.parameters.vector, before)
    network.parameters["dense1.bias"][0] = np.nan
    with np.errstate(all="ignore"):
        assert not verify(network, workers=()).passed


@dataclass(frozen=True)
class Fold(Elementwise):
    """y = |x|, with a kink at 0, and the gradient -1 there."""

    kind: ClassVar[str] = "fold"

    def value(self, x: Array) -> Array:
        return np.abs(x)

    def derivative(self, x: Array) -> Array:
        return np.where(x > 0, 1.0, -1.0)

    def sides(self, x: Array) -> Mask:
        return x > 0


def test_a_layer_of_ones_own_declares_its_kinks() -> None:
    lowered = Network(Sequential(Dense(3), Residual(Fold()), Dense(2)), (3,), dtype=np.float64).lower(1)
    seen = {sides(lowered.layers) for x in (1.0, 2.0, -1.0) if len(lowered.forward(np.full((1, 3), x)))}
    assert len(seen) == 2
    checks = verify_layer(Fold(), IMAGE, reference=lambda x, parameters: np.sqrt(x * x))
    assert checks.passed, str(checks)
