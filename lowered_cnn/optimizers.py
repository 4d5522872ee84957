"""Optimizers on the flat parameter vector or a slice of it: each is a description and, beside it, its lowered form."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Array, InputError, check_flag, is_number
from lowered_cnn.parameters import ParameterVector


class LoweredOptimizer(ABC):
    """An optimizer at work on some of the parameters; all that it keeps from step to step is in its buffers."""

    @abstractmethod
    def step(self, gradient: Array, learning_rate: float, number: int) -> None:
        """Update the parameters in place in step `number`, from 1; `gradient` is left unchanged."""


class Optimizer(ABC):
    """A description with the `learning_rate` that a schedule scales."""

    learning_rate: float

    @property
    def buffers(self) -> tuple[str, ...]:
        """The names of its state: vectors laid out like the learned parameters, all zero at the start."""
        return ()

    @abstractmethod
    def lower(
        self, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> LoweredOptimizer:
        """Return the form that updates these values, and keeps its state in the buffers.

        `decays` is 1 for each entry that decays, else 0; `rates` multiply the learning rate. Steps are element-wise, so
        slices of a vector may be lowered separately and give the same bits. Whatever the form remembers outside of the
        buffers is lost when a training is stopped.
        """

    def over(self, parameters: ParameterVector) -> "Update":
        """Return the update of `network.parameters`; it holds the optimizer's state."""
        if not isinstance(parameters, ParameterVector):
            raise InputError("optimizer: parameters", "network.parameters", type(parameters).__name__)
        buffers = {name: np.zeros_like(parameters.learned) for name in self.buffers}
        return Update(self, parameters, buffers, slice(0, len(parameters.vector)))


class Update:
    """An optimizer at work on a slice of the parameter vector: `learned` and `statistics` are its two parts.

    Its state is `buffers`, of which it uses the same slice, and `steps`, the number of steps taken. Entries whose rate
    is 0 are frozen: no optimizer sees them.
    """

    def __init__(
        self, optimizer: Optimizer, parameters: ParameterVector, buffers: Mapping[str, Array], part: slice
    ) -> None:
        end = len(parameters.learned)
        self.buffers, self.steps = buffers, 0
        self.learned = slice(min(part.start, end), min(part.stop, end))
        self.statistics = slice(max(part.start, end), max(part.stop, end))
        self._learning_rate = optimizer.learning_rate
        self._length, self._values = len(parameters.vector), parameters.vector[self.statistics]
        decays, rates = parameters.decays(), parameters.rates()
        self._optimizers = [
            (
                run,
                optimizer.lower(
                    parameters.vector[run],
                    {name: buffer[run] for name, buffer in buffers.items()},
                    decays[run],
                    1.0 if np.all(rates[run] == 1) else rates[run],
                ),
            )
            for run in _learning(rates, self.learned)
        ]

    def step(self, gradients: ParameterVector, learning_rate: float | None = None) -> None:
        """Update the slice in place: learned entries by the optimizer, statistics by subtracting their "gradient".

        The learning rate is the optimizer's own unless given.
        """
        if not isinstance(gradients, ParameterVector) or len(gradients.vector) != self._length:
            raise InputError("update: gradients", "network.gradient(...).parameters", type(gradients).__name__)
        rate = self._learning_rate if learning_rate is None else learning_rate
        self.steps += 1
        for run, optimizer in self._optimizers:
            optimizer.step(gradients.vector[run], rate, self.steps)
        self._values -= gradients.vector[self.statistics]


def _learning(rates: Array, part: slice) -> list[slice]:
    """Return the runs of entries that learn, those with a rate above 0, in a part of the vector."""
    edges = part.start + np.flatnonzero(np.diff(rates[part] != 0, prepend=False, append=False))
    return [slice(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent with momentum, as in PyTorch and the derivation (S10).

    g' = g + l2 w (weights only, not biases), v = momentum v + g', w = w - learning_rate v; with Nesterov's momentum
    (Sutskever et al., 2013) the step is learning_rate (g' + momentum v). `l2` is lambda / m in the derivation.
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check("SGD", self.learning_rate, self.l2, momentum=self.momentum)
        if self.nesterov and not self.momentum:
            raise InputError("SGD: nesterov", "a momentum above 0", self.momentum)

    @property
    def buffers(self) -> tuple[str, ...]:
        """The velocity v, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def lower(
        self, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> LoweredOptimizer:
        """Return the form that updates these values."""
        return _LoweredSGD(self, values, buffers, decays, rates)


class _LoweredSGD(LoweredOptimizer):
    def __init__(
        self, sgd: SGD, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> None:
        self.sgd = sgd
        self.values = values
        self.velocity = buffers.get("velocity", values[:0])
        self.decay = decays * sgd.l2
        self.rates = rates
        self.regularized, self.spare = np.empty_like(self.values), np.empty_like(self.values)

    def step(self, gradient: Array, learning_rate: float, number: int) -> None:
        """The step w = w - learning_rate v."""
        momentum = self.sgd.momentum
        if self.sgd.l2:
            np.multiply(self.decay, self.values, out=self.regularized)
            gradient = np.add(gradient, self.regularized, out=self.regularized)
        if momentum:
            self.velocity *= momentum
            self.velocity += gradient
            if self.sgd.nesterov:
                gradient = np.add(gradient, np.multiply(self.velocity, momentum, out=self.spare), out=self.spare)
            else:
                gradient = self.velocity
        self.values -= np.multiply(gradient, learning_rate * self.rates, out=self.spare)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba, 2015): w = w - learning_rate m / (sqrt(v) + epsilon).

    m and v are the bias-corrected means of g' and of its square, with g' = g + l2 w (weights only).
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check_adam("Adam", self, self.l2)

    @property
    def buffers(self) -> tuple[str, ...]:
        """The moments m and v."""
        return ("mean", "square")

    def lower(
        self, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> LoweredOptimizer:
        """Return the form that updates these values."""
        return _LoweredAdam(self, values, buffers, decays, rates)


class _LoweredAdam(LoweredOptimizer):
    def __init__(
        self, adam: Adam, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> None:
        self.adam = adam
        self.values = values
        self.mean, self.square = buffers["mean"], buffers["square"]
        self.decay = decays * adam.l2
        self.rates = rates
        self.regularized, self.spare = np.empty_like(self.values), np.empty_like(self.values)

    def step(self, gradient: Array, learning_rate: float, number: int) -> None:
        """The step w = w - learning_rate m / (sqrt(v) + epsilon), with m and v corrected for their start at zero."""
        adam, spare = self.adam, self.spare
        if adam.l2:
            np.multiply(self.decay, self.values, out=self.regularized)
            gradient = np.add(gradient, self.regularized, out=self.regularized)
        self.mean *= adam.beta1
        self.mean += np.multiply(gradient, 1 - adam.beta1, out=spare)
        self.square *= adam.beta2
        np.multiply(gradient, gradient, out=spare)
        self.square += np.multiply(spare, 1 - adam.beta2, out=spare)
        np.divide(self.square, 1 - adam.beta2**number, out=spare)
        np.sqrt(spare, out=spare)
        spare += adam.epsilon
        np.divide(self.mean, spare, out=spare)
        self.values -= np.multiply(spare, learning_rate / (1 - adam.beta1**number) * self.rates, out=spare)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with weight decay decoupled from the moments (Loshchilov and Hutter, 2019), as in PyTorch.

    Weights, not biases, become (1 - learning_rate weight_decay) w; then comes Adam's step, with g' = g.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not (is_number(self.weight_decay) and 0 <= self.weight_decay < float("inf")):
            raise InputError("AdamW: weight_decay", "a finite number of at least 0", repr(self.weight_decay))
        _check_adam("AdamW", self)

    buffers = Adam.buffers

    def lower(
        self, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> LoweredOptimizer:
        """Return the form that updates these values."""
        return _LoweredAdamW(self, values, buffers, decays, rates)


class _LoweredAdamW(LoweredOptimizer):
    def __init__(
        self, adam: AdamW, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> None:
        self.values = values
        self.decay = decays * rates * adam.weight_decay
        self.spare = np.empty_like(values)
        plain = Adam(adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon)
        self.adam = plain.lower(values, buffers, decays, rates)

    def step(self, gradient: Array, learning_rate: float, number: int) -> None:
        """The decay w = (1 - learning_rate weight_decay) w, then Adam's step from there."""
        np.multiply(self.decay, self.values, out=self.spare)
        self.values -= np.multiply(self.spare, learning_rate, out=self.spare)
        self.adam.step(gradient, learning_rate, number)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Gradients divided by their recent size (Tieleman and Hinton, 2012), as in PyTorch.

    v = alpha v + (1 - alpha) g'^2, w = w - learning_rate g' / (sqrt(v) + epsilon), with g' = g + l2 w (weights only).
    If `centered`, g' is divided by its deviation (Graves, 2013): v - m^2 takes the place of v in w's equation, with
    m = alpha m + (1 - alpha) g'. With momentum, w = w - learning_rate u and u = momentum u + g' / (sqrt(v) + epsilon).
    """

    learning_rate: float = 0.01
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check("RMSprop", self.learning_rate, self.l2, alpha=self.alpha, momentum=self.momentum)
        _check_epsilon("RMSprop", self.epsilon)
        check_flag("RMSprop: centered", self.centered)

    @property
    def buffers(self) -> tuple[str, ...]:
        """The mean square v; the mean m, if centered; the velocity u, if there is momentum."""
        return ("square", *["mean"] * self.centered, *["velocity"] * (self.momentum > 0))

    def lower(
        self, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> LoweredOptimizer:
        """Return the form that updates these values."""
        return _LoweredRMSprop(self, values, buffers, decays, rates)


class _LoweredRMSprop(LoweredOptimizer):
    def __init__(
        self, rmsprop: RMSprop, values: Array, buffers: Mapping[str, Array], decays: Array, rates: Array | float
    ) -> None:
        self.rmsprop = rmsprop
        self.values = values
        self.square = buffers["square"]
        self.mean, self.velocity = (buffers.get(name, values[:0]) for name in ("mean", "velocity"))
        self.decay = decays * rmsprop.l2
        self.rates = rates
        self.regularized, self.spare = np.empty_like(self.values), np.empty_like(self.values)

    def step(self, gradient: Array, learning_rate: float, number: int) -> None:
        """The step w = w - learning_rate g' / (sqrt(v) + epsilon), or - learning_rate u."""
        rmsprop, spare = self.rmsprop, self.spare
        if rmsprop.l2:
            np.multiply(self.decay, self.values, out=self.regularized)
            gradient = np.add(gradient, self.regularized, out=self.regularized)
        self.square *= rmsprop.alpha
        np.multiply(gradient, gradient, out=spare)
        self.square += np.multiply(spare, 1 - rmsprop.alpha, out=spare)
        update = np.divide(gradient, self._size(gradient), out=spare)
        if rmsprop.momentum:
            self.velocity *= rmsprop.momentum
            self.velocity += update
            update = self.velocity
        self.values -= np.multiply(update, learning_rate * self.rates, out=spare)

    def _size(self, gradient: Array) -> Array:
        """Return sqrt(v) + epsilon; if centered, sqrt(v - m^2) + epsilon, with m brought up to date."""
        square, spare = self.square, self.spare
        if self.rmsprop.centered:
            self.mean *= self.rmsprop.alpha
            self.mean += np.multiply(gradient, 1 - self.rmsprop.alpha, out=spare)
            np.subtract(square, np.multiply(self.mean, self.mean, out=spare), out=spare)
            square = np.maximum(spare, 0, out=spare)  # rounding may make it negative
        np.sqrt(square, out=spare)
        spare += self.rmsprop.epsilon
        return spare


def _check(where: str, learning_rate: float, l2: float, **rates: float) -> None:
    if not (is_number(learning_rate) and 0 < learning_rate < float("inf")):
        raise InputError(f"{where}: learning_rate", "a number above 0", repr(learning_rate))
    if not (is_number(l2) and 0 <= l2 < float("inf")):
        raise InputError(f"{where}: l2", "a finite number of at least 0", repr(l2))
    for name, rate in rates.items():
        if not (is_number(rate) and 0 <= rate < 1):
            raise InputError(f"{where}: {name}", "a number from 0 up to, but not including, 1", repr(rate))


def _check_adam(where: str, adam: Adam | AdamW, l2: float = 0.0) -> None:
    _check(where, adam.learning_rate, l2, beta1=adam.beta1, beta2=adam.beta2)
    _check_epsilon(where, adam.epsilon)


def _check_epsilon(where: str, epsilon: float) -> None:
    if not (is_number(epsilon) and 0 < epsilon < float("inf")):
        raise InputError(f"{where}: epsilon", "a number above 0", repr(epsilon))
