"""Optimizers on the flat vector: against their formulas, one number at a time, and against PyTorch."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import assert_close, normal

from lowered_cnn import SGD, Adam, AdamW, InputError, RMSprop
from lowered_cnn.arrays import Array
from lowered_cnn.optimizers import LoweredOptimizer, Optimizer
from lowered_cnn.parameters import Parameter, ParameterVector

STEPS = 5
OPTIMIZERS = [
    SGD(0.1),
    SGD(0.1, l2=0.2),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, l2=0.2),
    SGD(0.1, momentum=0.8, nesterov=True, l2=0.2),
    Adam(0.1),
    Adam(0.1, beta1=0.8, beta2=0.95, epsilon=1e-3, l2=0.2),
]
DRAWN = st.builds(
    RMSprop,
    st.floats(1e-4, 0.1),
    st.floats(0.1, 0.999),  # PyTorch's roots of negative variances come below
    st.floats(1e-8, 0.1),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.booleans(),
    st.sampled_from([0.0, 0.2]),
)
every = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)


def parameters(dtype: type[np.floating] = np.float64) -> ParameterVector:
    """A weight of three numbers and a bias of two."""
    vector = ParameterVector.zeros([Parameter("weight", (3,), decays=True), Parameter("bias", (2,))], dtype)
    vector.vector[...] = normal(5)
    return vector


def gradients() -> Iterator[Array]:
    return (normal(5, seed=step) for step in range(1, STEPS + 1))


def lower(optimizer: Optimizer, values: ParameterVector) -> LoweredOptimizer:
    buffers = {name: np.zeros_like(values.vector) for name in optimizer.buffers}
    return optimizer.lower(values.vector, buffers, values.decays(), 1.0)


def walk(optimizer: Optimizer) -> Array:
    """Take the steps with the optimizer under test, at a learning rate that changes."""
    values = parameters()
    lowered = lower(optimizer, values)
    for number, gradient in enumerate(gradients()):
        lowered.step(gradient.copy(), optimizer.learning_rate / (1 + number), number + 1)
    return values.vector


def sgd_by_hand(sgd: SGD, w: float, decays: bool) -> Callable[[float, float], float]:
    velocity = 0.0

    def step(gradient: float, learning_rate: float) -> float:
        nonlocal w, velocity
        gradient += sgd.l2 * w if decays else 0
        velocity = sgd.momentum * velocity + gradient
        w -= learning_rate * (gradient + sgd.momentum * velocity if sgd.nesterov else velocity)
        return w

    return step


def adam_by_hand(adam: Adam, w: float, decays: bool) -> Callable[[float, float], float]:
    mean = square = 0.0
    steps = 0

    def step(gradient: float, learning_rate: float) -> float:
        nonlocal w, mean, square, steps
        steps += 1
        gradient += adam.l2 * w if decays else 0
        mean = adam.beta1 * mean + (1 - adam.beta1) * gradient
        square = adam.beta2 * square + (1 - adam.beta2) * gradient**2
        corrected = mean / (1 - adam.beta1**steps), square / (1 - adam.beta2**steps)
        w -= learning_rate * corrected[0] / (corrected[1] ** 0.5 + adam.epsilon)
        return w

    return step


@every
def test_steps_are_those_of_the_formula(optimizer: SGD | Adam) -> None:
    start, ours = parameters(), walk(optimizer)
    for i, w in enumerate(start.vector):
        decays = bool(start.decays()[i])
        step = sgd_by_hand(optimizer, w, decays) if isinstance(optimizer, SGD) else adam_by_hand(optimizer, w, decays)
        ends = [step(gradient[i], optimizer.learning_rate / (1 + n)) for n, gradient in enumerate(gradients())]
        assert ours[i] == pytest.approx(ends[-1], rel=1e-13)


@every
def test_steps_are_those_of_pytorch(optimizer: SGD | Adam, torch: Any) -> None:
    weight, bias = (torch.tensor(part) for part in np.split(parameters().vector, [3]))
    groups = [{"params": [weight], "weight_decay": optimizer.l2}, {"params": [bias], "weight_decay": 0}]
    theirs: Any
    if isinstance(optimizer, SGD):
        theirs = torch.optim.SGD(groups, momentum=optimizer.momentum, nesterov=optimizer.nesterov)
    else:
        theirs = torch.optim.Adam(groups, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.epsilon)
    for number, gradient in enumerate(gradients()):
        weight.grad, bias.grad = (torch.tensor(part) for part in np.split(gradient, [3]))
        for group in theirs.param_groups:
            group["lr"] = optimizer.learning_rate / (1 + number)
        theirs.step()
    assert_close(walk(optimizer), np.concatenate([weight, bias]), 1e-13)


@given(rmsprop=DRAWN, steps=st.integers(1, 30), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_steps_of_rmsprop_are_those_of_pytorch(rmsprop: RMSprop, steps: int, seed: int, torch: Any) -> None:
    values = parameters()
    lowered = lower(rmsprop, values)
    weight, bias = (torch.tensor(part) for part in np.split(values.vector.copy(), [3]))
    theirs = torch.optim.RMSprop(
        [{"params": [weight], "weight_decay": rmsprop.l2}, {"params": [bias], "weight_decay": 0}],
        alpha=rmsprop.alpha,
        eps=rmsprop.epsilon,
        momentum=rmsprop.momentum,
        centered=rmsprop.centered,
    )
    for number in range(1, steps + 1):
        gradient = normal(5, seed=seed + number)
        rate = rmsprop.learning_rate / number
        lowered.step(gradient, rate, number)
        weight.grad, bias.grad = (torch.tensor(part) for part in np.split(gradient, [3]))
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        assert_close(values.vector, np.concatenate([weight, bias]), 1e-9)


def test_the_variance_of_a_constant_gradient_is_not_rounded_below_zero() -> None:
    values = parameters(np.float32)
    lowered = lower(RMSprop(alpha=0.5, centered=True), values)
    for number in range(1, 101):
        lowered.step(normal(5).astype(np.float32), 1e-6, number)
        assert np.isfinite(values.vector).all()


@given(
    optimizer=st.one_of(DRAWN, st.sampled_from([*OPTIMIZERS, AdamW(0.1)])),
    cuts=st.sets(st.integers(1, 4)),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_slices_give_the_same_bits(optimizer: Optimizer, cuts: set[int], dtype: type[np.floating]) -> None:
    whole, sliced = parameters(dtype), parameters(dtype)
    at_once = lower(optimizer, whole)
    parts = [slice(*ends) for ends in pairwise([0, *sorted(cuts), 5])]
    lowered = [
        optimizer.lower(
            sliced.vector[part],
            {name: np.zeros_like(sliced.vector[part]) for name in optimizer.buffers},
            sliced.decays()[part],
            1.0,
        )
        for part in parts
    ]
    for number, gradient in enumerate(gradients(), 1):
        gradient = gradient.astype(dtype)
        at_once.step(gradient, optimizer.learning_rate, number)
        for part, one in zip(parts, lowered, strict=True):
            one.step(gradient[part], optimizer.learning_rate, number)
        np.testing.assert_array_equal(sliced.vector, whole.vector)


def test_l2_pulls_at_weights_and_not_at_biases() -> None:
    values = parameters()
    before = values.vector.copy()
    lower(SGD(0.5, l2=0.1), values).step(np.zeros(5), 0.5, 1)
    assert_close(values["weight"], 0.95 * before[:3], 1e-15)
    np.testing.assert_array_equal(values["bias"], before[3:])


@every
def test_float32_stays_float32(optimizer: Optimizer) -> None:
    values = parameters(np.float32)
    before = values["weight"].copy()
    lower(optimizer, values).step(np.ones(5, np.float32), 0.1, 1)
    assert values["weight"].dtype == np.float32
    assert (values["weight"] != before).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0), "SGD: learning_rate: expected a number above 0, got 0"),
        (lambda: SGD(float("nan")), "SGD: learning_rate: expected a number above 0, got nan"),
        (lambda: SGD(momentum=1), "SGD: momentum: expected a number from 0 up to, but not including, 1, got 1"),
        (lambda: SGD(l2=-1), "SGD: l2: expected a finite number of at least 0, got -1"),
        (lambda: SGD(nesterov=True), "SGD: nesterov: expected a momentum above 0, got 0.0"),
        (lambda: Adam(-1), "Adam: learning_rate: expected a number above 0, got -1"),
        (lambda: Adam(beta1=1), "Adam: beta1: expected a number from 0 up to, but not including, 1, got 1"),
        (lambda: Adam(beta2=-1), "Adam: beta2: expected a number from 0 up to, but not including, 1, got -1"),
        (lambda: RMSprop(0), "RMSprop: learning_rate: expected a number above 0, got 0"),
        (lambda: RMSprop(alpha=1), "RMSprop: alpha: expected a number from 0 up to, but not including, 1, got 1"),
        (lambda: RMSprop(epsilon=0), "RMSprop: epsilon: expected a number above 0, got 0"),
        (lambda: RMSprop(momentum=1), "RMSprop: momentum: expected a number from 0 up to, but not including, 1, got 1"),
        (lambda: RMSprop(centered=cast(Any, 1)), "RMSprop: centered: expected True or False, got 1"),
        (lambda: RMSprop(l2=-1), "RMSprop: l2: expected a finite number of at least 0, got -1"),
        (lambda: Adam(epsilon=0), "Adam: epsilon: expected a number above 0, got 0"),
        (lambda: SGD(cast(Any, "a")), "SGD: learning_rate: expected a number above 0, got 'a'"),
        (lambda: SGD(l2=cast(Any, None)), "SGD: l2: expected a finite number of at least 0, got None"),
        (
            lambda: Adam(beta1=cast(Any, 1j)),
            "Adam: beta1: expected a number from 0 up to, but not including, 1, got 1j",
        ),
        (lambda: Adam(epsilon=cast(Any, "a")), "Adam: epsilon: expected a number above 0, got 'a'"),
    ],
)
def test_settings_without_sense_are_refused(make: Callable[[], Optimizer], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
