"""Optimizers on the flat parameter vector, or a slice of it: a description, and beside it the state of the steps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Array, InputError, is_number


class LoweredOptimizer(ABC):
    """The optimizer's buffers for some of the parameters."""

    @abstractmethod
    def step(self, gradient: Array, learning_rate: float) -> None:
        """Update the parameters in place; may overwrite `gradient`."""


class Optimizer(ABC):
    """A description with the `learning_rate` that a schedule scales."""

    learning_rate: float

    @abstractmethod
    def lower(self, values: Array, weights: Array) -> LoweredOptimizer:
        """Allocate the state for these parameters; `weights` is 1 for each entry of a weight, 0 for each of a bias.

        Every parameter takes its steps alone, so slices of a vector may be lowered apart, and to the same bits.
        """


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent with momentum, as in PyTorch and the seed (S10).

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

    def lower(self, values: Array, weights: Array) -> LoweredOptimizer:
        """Allocate the velocity."""
        return _LoweredSGD(self, values, weights)


class _LoweredSGD(LoweredOptimizer):
    def __init__(self, sgd: SGD, values: Array, weights: Array) -> None:
        self.sgd = sgd
        self.values = values
        self.decay = weights * sgd.l2
        self.velocity = np.zeros_like(self.values)
        self.spare = np.empty_like(self.values)

    def step(self, gradient: Array, learning_rate: float) -> None:
        """W = w - learning_rate v."""
        momentum = self.sgd.momentum
        if self.sgd.l2:
            gradient += np.multiply(self.decay, self.values, out=self.spare)
        if momentum:
            self.velocity *= momentum
            self.velocity += gradient
            if self.sgd.nesterov:
                gradient += np.multiply(self.velocity, momentum, out=self.spare)
            else:
                gradient = self.velocity
        self.values -= np.multiply(gradient, learning_rate, out=self.spare)


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

    def lower(self, values: Array, weights: Array) -> LoweredOptimizer:
        """Allocate both moments."""
        return _LoweredAdam(self, values, weights)


class _LoweredAdam(LoweredOptimizer):
    def __init__(self, adam: Adam, values: Array, weights: Array) -> None:
        self.adam = adam
        self.values = values
        self.decay = weights * adam.l2
        self.mean, self.square = np.zeros_like(self.values), np.zeros_like(self.values)
        self.spare = np.empty_like(self.values)
        self.steps = 0

    def step(self, gradient: Array, learning_rate: float) -> None:
        """W = w - learning_rate m / (sqrt(v) + epsilon), with m and v corrected for their start at zero."""
        adam, spare = self.adam, self.spare
        self.steps += 1
        if adam.l2:
            gradient += np.multiply(self.decay, self.values, out=spare)
        self.mean *= adam.beta1
        self.mean += np.multiply(gradient, 1 - adam.beta1, out=spare)
        self.square *= adam.beta2
        np.multiply(gradient, gradient, out=spare)
        self.square += np.multiply(spare, 1 - adam.beta2, out=spare)
        np.divide(self.square, 1 - adam.beta2**self.steps, out=spare)
        np.sqrt(spare, out=spare)
        spare += adam.epsilon
        np.divide(self.mean, spare, out=spare)
        self.values -= np.multiply(spare, learning_rate / (1 - adam.beta1**self.steps), out=spare)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with the decay apart from the moments (Loshchilov and Hutter, 2019), as in PyTorch.

    Weights, not biases, become (1 - learning_rate weight_decay) w; then Adam's step, with g' = g.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not (is_number(self.weight_decay) and 0 <= self.weight_decay < float("inf")):
            raise InputError("AdamW: weight_decay", "a number from 0", repr(self.weight_decay))
        _check_adam("AdamW", self)

    def lower(self, values: Array, weights: Array) -> LoweredOptimizer:
        """Allocate both moments."""
        return _LoweredAdamW(self, values, weights)


class _LoweredAdamW(LoweredOptimizer):
    def __init__(self, adam: AdamW, values: Array, weights: Array) -> None:
        self.values = values
        self.decay = weights * adam.weight_decay
        self.spare = np.empty_like(values)
        self.adam = Adam(adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon).lower(values, weights)

    def step(self, gradient: Array, learning_rate: float) -> None:
        """W = (1 - learning_rate weight_decay) w, and Adam's step from there."""
        np.multiply(self.decay, self.values, out=self.spare)
        self.values -= np.multiply(self.spare, learning_rate, out=self.spare)
        self.adam.step(gradient, learning_rate)


def _check(where: str, learning_rate: float, l2: float, **rates: float) -> None:
    if not (is_number(learning_rate) and 0 < learning_rate < float("inf")):
        raise InputError(f"{where}: learning_rate", "a number above 0", repr(learning_rate))
    if not (is_number(l2) and 0 <= l2 < float("inf")):
        raise InputError(f"{where}: l2", "a number from 0", repr(l2))
    for name, rate in rates.items():
        if not (is_number(rate) and 0 <= rate < 1):
            raise InputError(f"{where}: {name}", "a number from 0 up to, but not including, 1", repr(rate))


def _check_adam(where: str, adam: Adam | AdamW, l2: float = 0.0) -> None:
    _check(where, adam.learning_rate, l2, beta1=adam.beta1, beta2=adam.beta2)
    if not (is_number(adam.epsilon) and 0 < adam.epsilon < float("inf")):
        raise InputError(f"{where}: epsilon", "a number above 0", repr(adam.epsilon))
