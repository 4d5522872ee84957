"""The doors that users come through: what they naturally write gives the right numbers, or one clear line."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import assert_close, normal

from lowered_cnn import (
    SGD,
    Adam,
    BatchNorm,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    InputError,
    Layer,
    LayerNorm,
    Lowered,
    MaxPool,
    MeanSquaredError,
    Network,
    Parameter,
    ParameterVector,
    Recipe,
    ReLU,
    Residual,
    Sequential,
    Site,
    Softmax,
    evaluate,
    load,
    save,
    softmax,
    summary,
    trace,
    train,
)
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.fusion import fuse
from lowered_cnn.fusion.fused import FusedConv
from lowered_cnn.layers.layer import is_stock
from lowered_cnn.verify.differences import relative_error
from lowered_cnn.verify.specimens import specimens, together

IMAGE: Shape = (2, 6, 6)
LABELS = np.array([0, 2, 1, 1, 0])


# --- arrays of every kind ---------------------------------------------------------------------------------------------


def strided(a: Array) -> Array:
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


KINDS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda a: a,
    "strided": strided,
    "in Fortran's order": np.asfortranarray,
    "batch-first from batch-last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "read-only": read_only,
    "backwards": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "foreign-endian": lambda a: a.astype(a.dtype.newbyteorder()),
    "float64": lambda a: a.astype(np.float64),
}
kinds = st.sampled_from(sorted(KINDS))


def step(network: Network, images: Array, dy: Array, *, fused: bool = True) -> tuple[Array, Array, Array]:
    """Return outputs, dX and the gradients of a step."""
    lowered = network.lower(len(images), wants_dx=True, fused=fused)
    y = lowered.forward(images).copy()
    dx = lowered.backward(dy)
    assert dx is not None
    return y, dx.copy(), lowered.gradients.vector.copy()


def batch(network: Network) -> tuple[Array, Array]:
    dtype = network.parameters.vector.dtype
    return normal(3, *network.input_shape).astype(dtype), normal(3, *network.output_shape, seed=1).astype(dtype)


@given(name=st.sampled_from(sorted(specimens())), x=kinds, dy=kinds, dtype=st.sampled_from(["f4", "f8"]))
def test_the_door_takes_arrays_of_every_kind(name: str, x: str, dy: str, dtype: str) -> None:
    specimen = specimens()[name]
    network = Network(specimen.model, specimen.input_shape, dtype=dtype)
    images, gradient = batch(network)
    given_images, given_gradient = KINDS[x](images), KINDS[dy](gradient)
    before = given_images.copy(), given_gradient.copy()
    for got, expected in zip(step(network, given_images, given_gradient), step(network, images, gradient), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(given_images, before[0])
    np.testing.assert_array_equal(given_gradient, before[1])


@dataclass(frozen=True)
class Handing(Layer):
    """Hands on what it gets, y and dx as arrays of some kind: a layer of one's own need not know the contract."""

    y_kind: str
    dx_kind: str

    kind: ClassVar[str] = "handing"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        return input_shape

    def lower(self, site: Site) -> Lowered:
        return LoweredHanding(self)


class LoweredHanding(Lowered):
    def __init__(self, layer: Handing) -> None:
        self.layer = layer

    def forward(self, x: Array) -> Array:
        return KINDS[self.layer.y_kind](x)

    def backward(self, dy: Array) -> Array:
        return KINDS[self.layer.dx_kind](dy)


@given(name=st.sampled_from(sorted(specimens())), y=kinds, dx=kinds, dtype=st.sampled_from(["f4", "f8"]))
def test_every_layer_stands_between_layers_that_hand_on_arrays_of_every_kind(
    name: str, y: str, dx: str, dtype: str
) -> None:
    specimen = specimens()[name]
    between = [part for layer in specimen.model.layers for part in (Handing(y, dx), layer)]
    plain, strange = (
        Network(model, specimen.input_shape, dtype=dtype) for model in (specimen.model, [*between, Handing(y, dx)])
    )
    assert list(plain.parameters) == list(strange.parameters)
    expected = step(plain, *batch(plain), fused=False)
    for got, wanted in zip(step(strange, *batch(plain), fused=False), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_gradient_of_a_normalization_does_not_get_lost() -> None:
    """The call that lost it: dy of batch-first code, as a view with its axes moved."""
    torch = pytest.importorskip("torch")
    for norm, theirs in ((BatchNorm(), torch.nn.BatchNorm2d(2)), (LayerNorm(), None)):
        network = Network(Sequential(norm), IMAGE, dtype=np.float64)
        x, dy = normal(5, *IMAGE), np.moveaxis(normal(*IMAGE, 5, seed=1), -1, 0)
        _, dx, _ = step(network, x, dy)
        images = torch.tensor(x, requires_grad=True)
        if theirs is None:
            moved = torch.movedim(images, 1, -1)
            y = torch.movedim(torch.nn.functional.layer_norm(moved, (2,)), -1, 1)
        else:
            y = theirs.double()(images)
        y.backward(torch.tensor(dy.copy()))
        assert_close(dx, images.grad.numpy(), 1e-12)


def test_a_gradient_of_another_shape_is_refused() -> None:
    lowered = Network(Dense(3), (4,)).lower(5)
    lowered.forward(normal(5, 4))
    with pytest.raises(InputError) as caught:
        lowered.backward(normal(3, 5))
    assert str(caught.value) == "network: dy: expected (5, 3), got (3, 5)"


def test_a_network_lowered_for_inference_says_that_it_has_no_gradients() -> None:
    lowered = Network(Dense(3), (4,)).lower(5, training=False)
    lowered.forward(normal(5, 4))
    with pytest.raises(InputError, match="network: backward: expected a network lowered for training, or with"):
        lowered.backward(normal(5, 3))


@dataclass(frozen=True)
class Cropping(Handing):
    """Says that it keeps the shape, and does not."""

    def lower(self, site: Site) -> Lowered:
        class Crop(LoweredHanding):
            def forward(self, x: Array) -> Array:
                return x[1:]

        return Crop(self)


def test_a_layer_that_gives_another_shape_than_it_says_is_named() -> None:
    network = Network([Dense(3), Cropping("as it is", "as it is"), Dense(2)], (4,))
    with pytest.raises(InputError, match=re.escape("handing1: y: expected (3, 1), got (2, 1)")):
        network.predict(normal(1, 4))


# --- classes of one's own that derive from ours -----------------------------------------------------------------------


class LoweredDouble(Lowered):
    """Twice what the lowered layer gives."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered = lowered

    def forward(self, x: Array) -> Array:
        return 2 * self.lowered.forward(x)

    def backward(self, dy: Array) -> Array | None:
        return self.lowered.backward(2 * dy)


class DoubleConv(Conv2D):
    def lower(self, site: Site) -> Lowered:
        return LoweredDouble(super().lower(site))


class DoubleReLU(ReLU):
    def lower(self, site: Site) -> Lowered:
        return LoweredDouble(super().lower(site))


class DoublePool(MaxPool):
    def lower(self, site: Site) -> Lowered:
        return LoweredDouble(super().lower(site))


class DoubleNorm(BatchNorm):
    def lower(self, site: Site) -> Lowered:
        return LoweredDouble(super().lower(site))


class DoubleSequential(Sequential):
    def lower(self, site: Site) -> Any:
        return LoweredDouble(super().lower(site))


class DoubleResidual(Residual):
    def lower(self, site: Site) -> Lowered:
        return LoweredDouble(super().lower(site))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("own", "stock"),
    [
        ([DoubleConv(3, 3), ReLU(), MaxPool(2)], [Conv2D(3, 3), ReLU(), MaxPool(2)]),
        ([Conv2D(3, 3), DoubleReLU(), MaxPool(2)], [Conv2D(3, 3), ReLU(), MaxPool(2)]),
        ([Conv2D(3, 3), DoublePool(2)], [Conv2D(3, 3), MaxPool(2)]),
        ([Conv2D(3, 3), DoubleNorm()], [Conv2D(3, 3), BatchNorm()]),
        ([DoubleSequential(Conv2D(3, 3), ReLU())], [Sequential(Conv2D(3, 3), ReLU())]),
        ([DoubleResidual(Conv2D(2, 3, padding=1))], [Residual(Conv2D(2, 3, padding=1))]),
    ],
)
def test_what_a_class_of_ones_own_does_is_not_fused_away(own: list[Layer], stock: list[Layer], training: bool) -> None:
    images = normal(5, *IMAGE)
    twice, once = (
        Network(layers, IMAGE, dtype=np.float64).lower(5, training=training).forward(images).copy()
        for layers in (own, stock)
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-12)


class Block(Sequential):
    """A class of one's own that changes nothing but how it is made."""

    def __init__(self, filters: int) -> None:
        super().__init__(Conv2D(filters, 3), MaxPool(2), ReLU())


class Skip(Residual):
    def __init__(self, filters: int) -> None:
        super().__init__(Sequential(Conv2D(filters, 3, padding=1), ReLU()))


def test_a_class_with_nothing_but_an_init_of_its_own_is_fused() -> None:
    assert is_stock(Block(3))
    assert not is_stock(DoubleConv(3, 3))
    assert not is_stock(Handing("as it is", "as it is"))
    for model in (Block(3), Sequential(Block(3)), Sequential(Residual(Block(3)))):
        assert "FusedConv" in repr(fuse(model, fold=False))
    assert isinstance(fuse(Block(3), fold=False).layers[0], FusedConv)
    network = Network([Block(4), Skip(4), Flatten(), Dense(2)], (2, 9, 9), dtype=np.float64)
    for fused, plain in zip(step(network, *batch(network)), step(network, *batch(network), fused=False), strict=True):
        assert_close(fused, plain, 1e-12)


# --- a training loop of one's own -------------------------------------------------------------------------------------


def normalized(dtype: Any = np.float64) -> Network:
    model = Sequential(Conv2D(4, 3), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(3))
    return Network(model, IMAGE, dtype=dtype)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9, nesterov=True, l2=0.01), Adam(0.01)], ids=repr)
def test_a_loop_of_ones_own_is_the_training(optimizer: SGD | Adam) -> None:
    """Three batches of one shard, in the order of the data: the same bits, statistics included."""
    from lowered_cnn import Constant
    from lowered_cnn.data.batches import batches

    data = Dataset(normal(48, *IMAGE), np.arange(48) % 3, ("0", "1", "2"))
    trained, own = normalized(), normalized()
    for _ in train(trained, data, Recipe(1, 16, optimizer, Constant(), shard_size=16)):
        pass
    update = optimizer.over(own.parameters)
    for indices in batches(48, 16, seed=0, epoch=1):
        update.step(own.gradient(data.images[indices], data.labels[indices]).parameters)
    np.testing.assert_array_equal(own.parameters.vector, trained.parameters.vector)
    assert own.parameters["batch_norm1.running_mean"].any()


def test_a_gradient_is_the_callers_own() -> None:
    network, images = normalized(), normal(5, *IMAGE)
    first = network.gradient(images, LABELS)
    kept = first.outputs.copy(), first.parameters.vector.copy()
    SGD(0.1, 0.9, nesterov=True, l2=0.1).over(network.parameters).step(first.parameters)
    network.gradient(images, LABELS)
    np.testing.assert_array_equal(first.outputs, kept[0])
    np.testing.assert_array_equal(first.parameters.vector, kept[1])


def test_a_gradient_is_the_derivative_of_its_loss() -> None:
    network, images, targets = normalized(), normal(5, *IMAGE), normal(5, 3, seed=1)
    found = network.gradient(images, targets, MeanSquaredError())
    learned = network.parameters.learned
    start = learned.copy()

    def loss(at: Array) -> float:
        learned[...] = at
        return network.gradient(images, targets, MeanSquaredError()).loss

    assert relative_error(loss, start, found.parameters.learned) < 1e-7


def test_dropout_draws_anew_in_each_pass_of_a_loop_of_ones_own() -> None:
    network = Network([Dropout(), Flatten()], (100,))
    images, targets = np.ones((2, 100)), np.zeros((2, 100))
    first, second = (network.gradient(images, targets, MeanSquaredError()).outputs for _ in range(2))
    assert 0.4 < np.mean(first == second) < 0.6
    lowered = network.lower(2)
    masks = [lowered.forward(images).copy() for _ in range(2)]
    assert 0.4 < np.mean(masks[0] == masks[1]) < 0.6


def test_labels_may_be_a_list_or_of_any_integer_type() -> None:
    network, images = normalized(), normal(5, *IMAGE)
    expected = network.gradient(images, LABELS)
    for labels in (LABELS.tolist(), LABELS.astype(np.int32), LABELS.astype(np.uint8)):
        np.testing.assert_array_equal(network.gradient(images, labels).parameters.vector, expected.parameters.vector)
        assert trace(network, images, labels, training=True).loss == pytest.approx(expected.loss, rel=1e-12)


def test_batches_of_other_sizes_may_follow_each_other() -> None:
    network, images = normalized(), normal(5, *IMAGE)
    for count in (5, 2, 3, 5, 1, 2):
        assert network.gradient(images[:count], LABELS[:count]).outputs.shape == (count, 3)


def test_the_rate_of_a_parameter_is_pytorchs_learning_rate_of_a_group() -> None:
    torch = pytest.importorskip("torch")
    owned = [Parameter("slow", (3,), rate=0.25, decays=True), Parameter("fast", (2,), rate=2.0)]
    for ours, theirs in (
        (SGD(0.1, 0.9, l2=0.05), lambda groups: torch.optim.SGD(groups, momentum=0.9)),
        (Adam(0.1), torch.optim.Adam),
    ):
        vector = ParameterVector.zeros(owned, np.float64)
        vector.vector = normal(5)
        slow, fast = (torch.nn.Parameter(torch.tensor(part)) for part in np.split(normal(5), [3]))
        decay = ours.l2
        groups = [{"params": [slow], "lr": 0.025, "weight_decay": decay}, {"params": [fast], "lr": 0.2}]
        reference, update = theirs(groups), ours.over(vector)
        for number in range(4):
            gradient = normal(5, seed=number)
            slow.grad, fast.grad = (torch.tensor(part) for part in np.split(gradient, [3]))
            reference.step()
            update.step(ParameterVector(owned, gradient))
        np.testing.assert_allclose(vector.vector, torch.cat([slow, fast]).detach().numpy(), rtol=1e-12)


# --- what goes through a network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_a_trace_is_what_pytorch_sees(training: bool) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    network = normalized()
    network.parameters.vector += 0.1 * normal(network.parameters.vector.size)
    network.parameters["batch_norm1.running_var"] = [0.5, 1.0, 2.0, 3.0]
    theirs = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).double()  # fmt: skip
    ours = network.parameters
    with torch.no_grad():
        for name, module in (("conv1", theirs[0]), ("batch_norm1", theirs[1]), ("dense1", theirs[5])):
            module.weight.copy_(torch.tensor(ours[f"{name}.weight"]))
            module.bias.copy_(torch.tensor(ours[f"{name}.bias"]))
        theirs[1].running_mean.copy_(torch.tensor(ours["batch_norm1.running_mean"]))
        theirs[1].running_var.copy_(torch.tensor(ours["batch_norm1.running_var"]))
    theirs.train(training)
    seen = [torch.tensor(normal(5, *IMAGE), requires_grad=True)]
    for module in theirs:
        seen.append(module(seen[-1]))
        seen[-1].retain_grad()
    loss = nn.functional.cross_entropy(seen[-1], torch.tensor(LABELS))
    loss.backward()
    traced = trace(network, normal(5, *IMAGE), LABELS, training=training)
    names = ["images", "conv1", "batch_norm1", "relu1", "max_pool1", "flatten1", "dense1"]
    assert list(traced.activations) == names
    assert set(traced.gradients) == set(names)
    assert traced.loss == pytest.approx(loss.item(), rel=1e-12)
    for name, tensor in zip(names, seen, strict=True):
        assert_close(traced.activations[name], tensor.detach().numpy(), 1e-11)
        assert_close(traced.gradients[name], tensor.grad.numpy(), 1e-11)


def test_a_trace_goes_into_branches() -> None:
    specimen = together()
    network = Network(specimen.model, specimen.input_shape)
    traced = trace(network, normal(2, *specimen.input_shape), np.array([0, 1]))
    assert {"residual1", "residual1.body.conv1", "concatenate1.branch2.softmax1"} <= set(traced.activations)
    assert traced.gradients.keys() == traced.activations.keys()
    np.testing.assert_array_equal(traced.activations["dense3"], traced.outputs)
    assert_close(traced.outputs, network.predict(normal(2, *specimen.input_shape)), 1e-5)


def test_every_specimen_has_gradients_at_inference() -> None:
    for specimen in specimens().values():
        network = Network(specimen.model, specimen.input_shape, dtype=np.float64)
        images, dy = batch(network)
        lowered = network.lower(3, training=False, wants_dx=True)
        outputs = lowered.forward(images).copy()
        assert_close(outputs, network.predict(images), 1e-11)
        dx = lowered.backward(dy)
        assert dx is not None
        assert dx.shape == images.shape


# --- softmax twice ----------------------------------------------------------------------------------------------------


def test_the_softmax_of_predictions_are_probabilities() -> None:
    network = Network(Dense(5), (5,))
    probabilities = softmax(network.predict(normal(5, 5)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert (probabilities.argmax(axis=1) == network.predict(normal(5, 5)).argmax(axis=1)).all()


@pytest.mark.parametrize("model", [[Dense(3), Softmax()], [Sequential(Dense(3), Sequential(Softmax()))], [Softmax()]])
def test_a_softmax_before_a_loss_with_its_own_is_refused(model: list[Layer]) -> None:
    network = Network(model, (3,))
    message = (
        "loss: expected a network without Softmax() at its end, as SoftmaxCrossEntropy() applies it "
        "(softmax(network.predict(images)) gives the probabilities), got Softmax()"
    )
    refusing: list[Callable[..., object]] = [network.gradient, partial(trace, network)]
    for run in [*refusing, lambda images, labels: train(network, (images, labels))]:
        with pytest.raises(InputError) as caught:
            run(normal(2, 3), np.array([0, 1]))
        assert str(caught.value) == message
    assert network.gradient(normal(2, 3), np.array([0, 1]), MeanSquaredError()).loss > 0


def test_a_network_that_ends_in_a_softmax_is_evaluated_by_its_probabilities() -> None:
    plain = Network(Dense(3), (4,), dtype=np.float64)
    ended = Network([Dense(3), Softmax()], (4,), dtype=np.float64)
    plain.parameters.vector = ended.parameters.vector = normal(15)
    data = (normal(20, 4), np.arange(20) % 3)
    expected, found = evaluate(plain, data), evaluate(ended, data)
    assert found.accuracy == expected.accuracy
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    plain.parameters.vector = ended.parameters.vector = 1e4 * normal(15)
    assert evaluate(ended, data).loss == np.inf


# --- the scale of the images ------------------------------------------------------------------------------------------


def test_the_same_pixels_as_floats_from_0_to_255_are_refused_after_a_training_on_bytes() -> None:
    network, pixels = Network([Flatten(), Dense(3)], IMAGE), np.arange(360).astype(np.uint8).reshape(5, *IMAGE)
    network.gradient(pixels, LABELS)
    assert network.input_range == (0.0, 1.0)
    assert_close(network.predict(pixels), network.predict(pixels.astype(np.float32) / 255), 1e-6)
    network.predict(normal(5, *IMAGE))
    message = "network: images: expected numbers on the scale of the training images, 0 to 1, got 0 to 255"
    with pytest.raises(InputError, match=message):
        network.predict(pixels.astype(np.float32))
    with pytest.raises(InputError, match=message):
        trace(network, pixels.astype(np.float32), LABELS)


def test_bytes_are_refused_after_a_training_on_floats_on_another_scale() -> None:
    network, pixels = Network([Flatten(), Dense(3)], IMAGE), np.full((5, *IMAGE), 255, np.uint8)
    network.gradient(pixels.astype(float) - 100, LABELS)
    with pytest.raises(InputError) as caught:
        network.predict(pixels)
    wanted = "expected numbers on the scale of the training images, 155 to 155, got bytes, which count as 0 to 1"
    assert str(caught.value) == f"network: images: {wanted}"


def test_the_scale_of_the_training_is_kept_with_the_network(tmp_path: Path) -> None:
    network = Network([Flatten(), Dense(3)], IMAGE)
    images = normal(5, *IMAGE).astype(np.float32)
    for _ in train(network, (images, LABELS), Recipe(1)):
        pass
    save(network, tmp_path / "network.safetensors")
    kept = load(tmp_path / "network.safetensors")
    assert kept.input_range == network.input_range == (images.min(), images.max())


def test_an_untrained_network_takes_any_scale() -> None:
    network = Network([Flatten(), Dense(3)], IMAGE)
    network.predict(1000 * normal(5, *IMAGE))
    network.predict(np.full((5, *IMAGE), 255, np.uint8))
    assert network.input_range is None


# --- what users write -------------------------------------------------------------------------------------------------


def test_arrays_are_assigned_to_parameters_without_detaching_anything() -> None:
    network = normalized()
    lowered = network.lower(1, training=False)
    weight = network.parameters["dense1.weight"]
    network.parameters.vector = np.zeros(len(network.parameters.vector))
    assert not weight.any()
    network.parameters["dense1.bias"] = [1, 2, 3]
    assert lowered.forward(normal(1, *IMAGE))[0].tolist() == [1, 2, 3]
    network.parameters.vector += 1
    network.parameters.learned *= 3
    assert (weight == 3).all()
    assert lowered.forward(np.zeros((1, *IMAGE))).tolist() != [[1, 2, 3]]
    with pytest.raises(InputError) as caught:
        network.parameters.vector = np.zeros(3)
    assert str(caught.value) == f"parameters: vector: expected shape ({len(network.parameters.vector)},), got (3,)"
    with pytest.raises(InputError, match=re.escape("parameters: dense1.bias: expected shape (3,), got (2,)")):
        network.parameters["dense1.bias"] = [1, 2]


def test_parameters_are_a_mapping() -> None:
    parameters = normalized().parameters
    assert {name: values.shape for name, values in parameters.items()}["dense1.weight"] == (3, 16)
    assert "dense1.weight" in parameters
    assert parameters.get("dense2.weight") is None
    assert next(iter(parameters.values())).shape == (4, 2, 3, 3)
    assert parameters == parameters
    assert parameters != normalized().parameters


def test_a_network_takes_one_layer_and_lists_of_layers() -> None:
    assert list(Network(Dense(2), (3,)).parameters) == ["dense1.weight", "dense1.bias"]
    layers = [Dense(4), ReLU(), Dense(2)]
    expected = Sequential(Dense(4), ReLU(), Dense(2))
    assert Sequential(layers) == expected == Sequential(tuple(layers)) == Network(layers, (3,)).model
    assert Residual(*anything([Dense(3), ReLU()])) == Residual(Sequential(Dense(3), ReLU()))


def anything(*arguments: Any) -> Any:
    """Hide from the types what users may write in spite of them."""
    return arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Sequential(*anything(Dense(2), "relu")),
            "Sequential: expected layers, such as ReLU() or Dense(10), got 'relu'",
        ),
        (lambda: Sequential(*anything(ReLU)), "Sequential: expected layers, such as ReLU() or Dense(10), got <class "),
        (lambda: Network(*anything(None, (3,))), "Sequential: expected layers, such as ReLU() or Dense(10), got None"),
        (lambda: Residual(*anything(3)), "Sequential: expected layers, such as ReLU() or Dense(10), got 3"),
    ],
)
def test_what_is_no_layer_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)


@dataclass(frozen=True)
class Counting(Layer):
    """Counts how often it is asked for its shape."""

    asked: ClassVar[list[int]] = []
    kind: ClassVar[str] = "counting"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        self.asked.append(1)
        return input_shape

    def lower(self, site: Site) -> Lowered:
        return LoweredHanding(Handing("as it is", "as it is"))


@pytest.mark.parametrize(
    "wrap", [Sequential, lambda layer: Sequential(Residual(layer)), lambda x: Sequential(ReLU(), x)]
)
def test_nested_layers_are_lowered_in_polynomial_time(wrap: Callable[[Layer], Layer]) -> None:
    def asked(depth: int) -> int:
        layer: Layer = Counting()
        for _ in range(depth):
            layer = wrap(layer)
        Counting.asked.clear()
        Network(layer, (3,)).predict(normal(1, 3))
        return len(Counting.asked)

    assert asked(40) <= 8 * asked(20)


def test_a_copy_of_a_network_has_buffers_of_its_own() -> None:
    import copy

    network = normalized()
    network.gradient(normal(5, *IMAGE), LABELS)
    other = copy.deepcopy(network)
    other.parameters.vector[...] = 0
    assert network.gradient(normal(5, *IMAGE), LABELS).outputs.any()
    assert not other.gradient(normal(5, *IMAGE), LABELS).outputs.any()
    assert other.input_range == network.input_range
    assert replace(network.gradient(normal(5, *IMAGE), LABELS), loss=0.0).loss == 0


# --- what users found -------------------------------------------------------------------------------------------------


def test_parameters_of_another_network_are_copied_and_reach_every_form() -> None:
    network, other = normalized(), normalized()
    other.parameters.vector += 0.1 * normal(other.parameters.vector.size)
    images = normal(5, *IMAGE)
    network.predict(images)
    network.gradient(images, LABELS)
    network.parameters = other.parameters
    np.testing.assert_array_equal(network.predict(images), other.predict(images))
    expected = other.gradient(images, LABELS).parameters.vector
    np.testing.assert_array_equal(network.gradient(images, LABELS).parameters.vector, expected)
    other.parameters.vector[...] = 0
    assert network.parameters.vector.any()
    for wrong in (Network(Dense(2), (3,)).parameters, np.zeros(3)):
        with pytest.raises(InputError, match="network: parameters: expected those of the same model, got"):
            network.parameters = anything(wrong)[0]


class Forgetful(Handing):
    """Forgets to return dx, gives something else, or is no lowered form at all."""

    def lower(self, site: Site) -> Lowered:
        class Lost(LoweredHanding):
            def forward(self, x: Array) -> Any:
                return [x] if self.layer.y_kind == "list" else x.astype(int) if self.layer.y_kind == "int" else x

            def backward(self, dy: Array) -> Any:
                return None

        return anything(None)[0] if self.y_kind == "none" else Lost(self)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("as it is", "handing1: dx: expected an array of floats, got NoneType"),
        ("list", "handing1: y: expected an array of floats, got list"),
        ("int", "handing1: y: expected an array of floats, got int64"),
        ("none", "handing1: lower: expected a Lowered, got NoneType"),
    ],
)
def test_a_layer_that_returns_nothing_useful_is_named(kind: str, message: str) -> None:
    network = Network([Dense(3), Forgetful(kind, kind), Dense(3)], (4,))
    for run in (network.gradient, partial(trace, network)):
        with pytest.raises(InputError) as caught:
            run(normal(2, 4), np.array([0, 1]))
        assert str(caught.value) == message


def test_the_noise_of_a_loop_goes_on_whatever_the_sizes_of_its_batches() -> None:
    network = Network([Flatten(), Dropout(0.5), Dense(3)], (50,))
    images, labels = normal(10, 50), np.arange(10) % 3
    losses = [network.gradient(images[:count], labels[:count]).loss for count in (10, 9, 8) * 2]
    assert len(set(losses)) == 6


def test_threads_take_their_turn() -> None:
    network, images = normalized(), normal(5, *IMAGE)
    expected = network.gradient(images, LABELS).parameters.vector
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: network.gradient(images, LABELS).parameters.vector, range(40)))
    assert all(np.array_equal(each, expected) for each in found)


@pytest.mark.parametrize("behind", [Flatten(), Dropout(0), Sequential(), Sequential(Flatten(), Dropout())])
def test_a_softmax_before_layers_that_change_nothing_is_found(behind: Layer) -> None:
    network = Network([Dense(3), Softmax(), behind], (4,))
    with pytest.raises(InputError, match="loss: expected a network without Softmax"):
        network.gradient(normal(2, 4), np.array([0, 1]))


def test_targets_of_one_output_are_values_not_classes() -> None:
    network = Network(Dense(1), (4,))
    flat, column = (network.gradient(normal(2, 4), np.array(y), MeanSquaredError()) for y in ([5, 7], [[5], [7]]))
    assert flat.loss == column.loss
    assert flat.parameters.vector.tobytes() == column.parameters.vector.tobytes()


def test_the_range_of_a_loop_grows_with_its_batches() -> None:
    network = Network([Flatten(), Dense(3)], IMAGE)
    for batch_of in (np.zeros((5, *IMAGE)), normal(5, *IMAGE), np.full((5, *IMAGE), np.nan)):
        network.gradient(batch_of, LABELS)
    images = normal(5, *IMAGE)
    assert network.input_range == (min(0, images.min()), images.max())
    network.predict(images)
    for run in (network.predict, lambda images: network.gradient(images, LABELS)):
        with pytest.raises(InputError, match="network: images: expected numbers on the scale of the training"):
            run(255 * images)


def test_features_have_no_scale() -> None:
    network = Network(Dense(3), (4,))
    network.gradient(normal(2, 4), np.array([0, 1]))
    network.predict(1e4 * normal(2, 4))


@dataclass(frozen=True)
class Twice(Counting):
    """Has two parameters of one name."""

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        return (Parameter("a", (3,)), Parameter("a", (2,)))


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match=re.escape("expected a different name for each, got counting1.a 2 times")):
        Network(Twice(), (3,))


@pytest.mark.parametrize("value", [None, "x", 1j, [[1, 2], [3]]])
def test_only_numbers_are_assigned_to_parameters(value: object) -> None:
    network = normalized()
    before = network.parameters.vector.copy()
    with pytest.raises(InputError, match=r"^parameters: dense1\.bias: expected"):
        network.parameters["dense1.bias"] = value
    np.testing.assert_array_equal(network.parameters.vector, before)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda n, d: SGD(0.1).over(n), "optimizer: parameters: expected network.parameters, got Network"),
        (
            lambda n, d: SGD(0.1).over(n.parameters).step(n.gradient(*d)),
            "update: gradients: expected network.",
        ),
        (lambda n, d: n.gradient(*d, "mse"), "loss: expected a loss, such as SoftmaxCrossEntropy() or Mean"),
        (lambda n, d: n.gradient(d[0][:0], d[1][:0]), "gradient: images: expected at least one, got 0"),
        (
            lambda n, d: trace(n, *d, *anything(None)),
            "loss: expected a loss, such as SoftmaxCrossEntropy() or MeanSquaredError()",
        ),
        (lambda n, d: train(n, d, *anything(5)), "train: recipe: expected a Recipe, got 5"),
        (
            lambda n, d: train(n.model, d),
            "train: network: expected a Network, such as Network(model, input_shape)",
        ),
        (lambda n, d: evaluate(n, d, *anything("mse")), "loss: expected a loss, such as SoftmaxCrossEntropy() or Mean"),
        (lambda n, d: evaluate(n.model, d), "evaluate: network: expected a Network, such as"),
        (lambda n, d: summary(n.model), "summary: network: expected a Network, such as"),
        (lambda n, d: save(n.model, "x"), "save: network: expected a Network, such as"),
        (lambda n, d: Conv2D(True, 3), "Conv2D: filters: expected a whole number of at least 1, got True"),
        (lambda n, d: n.lower(True), "network: batch: expected a whole number of at least 1, got True"),
    ],
)
def test_slips_are_answered_in_one_line(run: Callable[[Any, Any], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        run(normalized(), (normal(5, *IMAGE), LABELS))
    assert str(caught.value).startswith(message)


def test_networks_of_classes_with_constructors_of_their_own_are_saved(tmp_path: Path) -> None:
    network = Network([Block(3), Skip(3), Flatten(), Dense(2)], (2, 9, 9))
    save(network, tmp_path / "own.safetensors")
    same = load(tmp_path / "own.safetensors")
    assert same.model == network.model
    np.testing.assert_array_equal(same.predict(normal(2, 2, 9, 9)), network.predict(normal(2, 2, 9, 9)))


@dataclass(frozen=True)
class WithSet(Handing):
    """Has a field that JSON has nothing for."""

    numbers: Any = frozenset({1})


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    network = Network(WithSet("as it is", "as it is"), (3,))
    with pytest.raises(InputError, match="frozenset: expected a class that can be found by its name, got"):
        save(network, tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_nothing_but_files_is_written_over(tmp_path: Path) -> None:
    network, target = Network(Dense(2), (3,)), tmp_path / "target.safetensors"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "target.safetensors.part").write_text("mine")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="output: expected a file to write, got"):
            save(network, path)
    save(network, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    load(target)
    assert (tmp_path / "target.safetensors.part").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(FileNotFoundError) as caught:
        save(network, tmp_path / "no" / "file")
    assert caught.value.filename == str(tmp_path / "no" / "file")
