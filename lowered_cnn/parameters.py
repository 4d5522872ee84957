"""Parameters in one flat vector with named views; gradients use the same layout."""

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Shape, check_shape

DRAWN = 1_000_000
"""How many numbers are drawn at a time."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a layer: its name and shape, how it is initialized, whether it decays, and how fast it learns.

    It is drawn from N(initial, deviation^2); with a deviation of 0, every entry is `initial`. L2 and weight decay apply
    to it only if it `decays`, as weights do and biases do not. `rate` multiplies the learning rate; 0 freezes it.

    A `statistic` is measured in training, not learned: no optimizer sees it, and its "gradient" is N times the amount
    that a step subtracts from it.
    """

    name: str
    shape: Shape
    initial: float = 0.0
    deviation: float = 0.0
    decays: bool = False
    rate: float = 1.0
    statistic: bool = False


@dataclass(frozen=True)
class Copied:
    """What `ParameterVector.copy_from` did: the names of the parameters that were `copied`, and those of all others.

    `missing` ones are only in the vector, `unused` ones only in what was copied from; `mismatched` ones are in both,
    with different shapes: the vector's and the other one.
    """

    copied: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: Mapping[str, tuple[Shape, Shape]]

    def __str__(self) -> str:
        shapes = [f"{name} {ours} from {theirs}" for name, (ours, theirs) in self.mismatched.items()]
        others = {"missing": self.missing, "unused": self.unused, "mismatched": shapes}
        found = [f"{what}: {', '.join(names)}" for what, names in others.items() if names]
        return "; ".join([f"{len(self.copied)} copied", *found])


def he_deviation(fan_in: int) -> float:
    """Return sqrt(2 / fan_in), which preserves the variance from layer to layer through ReLU (He et al., 2015)."""
    return math.sqrt(2 / fan_in)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern, in which * stands for any text, matches a parameter or something that contains it.

    "conv1" and "conv*" match conv1.weight; "conv1" does not match conv10.weight.
    """
    return any(fnmatchcase(prefix, pattern) for prefix in itertools.accumulate(name.split("."), "{}.{}".format))


def with_rates(
    parameters: Sequence[Parameter], frozen: Sequence[str], rates: Sequence[tuple[str, float]]
) -> tuple[Parameter, ...]:
    """Return the parameters with their rates multiplied by those of the patterns, and set to 0 where `frozen`.

    Of several patterns that match a parameter, the last one gives its rate. Raises InputError for a pattern that
    matches none, and if nothing is left to learn.
    """
    for where, patterns in ("frozen", frozen), ("rates", [pattern for pattern, _ in rates]):
        for pattern in patterns:
            if not any(matches(pattern, p.name) for p in parameters):
                got = f"{pattern!r}, which matches none of {', '.join(p.name for p in parameters)}"
                raise InputError(f"Recipe: {where}", "patterns of the network's layers or parameters", got)
    changed = []
    for p in parameters:
        rate = next((rate for pattern, rate in reversed(rates) if matches(pattern, p.name)), 1.0)
        is_frozen = any(matches(pattern, p.name) for pattern in frozen)
        changed.append(replace(p, rate=0.0 if is_frozen else p.rate * rate))
    if frozen and not any(p.rate for p in changed if not p.statistic):
        raise InputError("Recipe: frozen", "something left to learn", "all parameters")
    return tuple(changed)


class ParameterVector(Mapping[str, Array]):
    """A flat `vector` with a view of each parameter by name: `parameters["conv1.weight"]`.

    First come the `learned` ones, then the `statistics`; both are views of the vector. Assignment writes into the
    existing array, so that all views stay views: `parameters.vector = w`, `parameters["conv1.bias"] = 0`.
    """

    def __init__(self, parameters: Sequence[Parameter], vector: Array) -> None:
        self.parameters = tuple(sorted(parameters, key=lambda parameter: parameter.statistic))
        self.vector = vector
        learned = sum(math.prod(p.shape) for p in self.parameters if not p.statistic)
        self.learned, self.statistics = vector[:learned], vector[learned:]
        ends = list(itertools.accumulate((math.prod(p.shape) for p in self.parameters), initial=0))
        self._views = {
            p.name: vector[start:stop].reshape(p.shape)
            for p, (start, stop) in zip(self.parameters, itertools.pairwise(ends), strict=True)
        }

    def __reduce__(self) -> tuple[type["ParameterVector"], tuple[tuple[Parameter, ...], Array]]:
        # A copy gets views of its own vector.
        return ParameterVector, (self.parameters, self.vector)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __setattr__(self, name: str, value: object) -> None:
        there = vars(self).get(name)
        if isinstance(there, np.ndarray):
            _write(f"parameters: {name}", there, value)
        else:
            super().__setattr__(name, value)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: object) -> None:
        _write(f"parameters: {name}", self[name], value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @classmethod
    def zeros(cls, parameters: Sequence[Parameter], dtype: npt.DTypeLike) -> "ParameterVector":
        """Lay out the parameters in a new vector of zeros."""
        return cls(parameters, np.zeros(sum(math.prod(p.shape) for p in parameters), dtype))

    def initialize(self, seed: int) -> None:
        """Draw every parameter from its own generator, which depends only on `seed` and the parameter's name.

        Numbers are drawn in double precision, a run at a time: all of a large weight would take twice its memory.
        """
        for p in self.parameters:
            generator = np.random.default_rng([seed, zlib.crc32(p.name.encode())])
            values = self[p.name].reshape(-1)
            for start in range(0, values.size, DRAWN):
                run = values[start : start + DRAWN]
                run[...] = p.initial + p.deviation * generator.standard_normal(run.size)

    def decays(self) -> Array:
        """Return a vector laid out like `learned`: 1 for each entry that decays, else 0."""
        return self._spread(lambda p: p.decays)

    def rates(self) -> Array:
        """Return a vector laid out like `learned`: the factor on each entry's learning rate."""
        return self._spread(lambda p: p.rate)

    def copy_from(self, other: Mapping[str, npt.ArrayLike]) -> Copied:
        """Copy the parameters whose names and shapes agree, and return which they were and what was left out.

        `other` is another network's `parameters`, or a mapping of arrays. Raises InputError, before anything is copied,
        if it is neither, or if anything in it is not an array of real numbers.
        """
        if not isinstance(other, Mapping):
            raise InputError("parameters: copy_from", "parameters, or a mapping of arrays", type(other).__name__)
        theirs = {name: _real(f"parameters: copy_from: {name}", values) for name, values in other.items()}
        shared = [name for name in self if name in theirs]
        fitting = [name for name in shared if self[name].shape == theirs[name].shape]
        for name in fitting:
            self[name][...] = theirs[name]
        return Copied(
            copied=tuple(fitting),
            missing=tuple(name for name in self if name not in theirs),
            unused=tuple(name for name in theirs if name not in self),
            mismatched={name: (self[name].shape, theirs[name].shape) for name in shared if name not in fitting},
        )

    def _spread(self, value: Callable[[Parameter], float]) -> Array:
        spread = ParameterVector.zeros(self.parameters, self.vector.dtype)
        for p in self.parameters:
            spread[p.name] = value(p)
        return spread.learned

    def assign(self, name: str, values: npt.NDArray[np.generic], where: str) -> None:
        """Overwrite one parameter; raises InputError if the shape differs."""
        check_shape(f"{where}: {name}", self[name].shape, values.shape)
        self[name][...] = values


def _write(where: str, there: Array, value: object) -> None:
    """Write a number, or an array of the same shape, into an array."""
    values = _real(where, value)
    if values.ndim and values.shape != there.shape:
        raise InputError(where, f"shape {there.shape}", values.shape)
    there[...] = values


def _real(where: str, value: object) -> npt.NDArray[Any]:
    """Return a value as an array; raises InputError unless it is one of real numbers."""
    try:
        values = np.asarray(value)
    except ValueError as error:
        raise InputError(where, "an array", "rows of different lengths") from error
    if values.dtype.kind not in "biuf":
        raise InputError(where, "real numbers", repr(value) if values.dtype.kind == "O" else values.dtype)
    return values
