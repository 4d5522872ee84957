"""Parameters in one flat vector with named views; gradients use the same layout."""

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Shape


@dataclass(frozen=True)
class Parameter:
    """What a layer owns: drawn from N(0, 2 / fan_in) at first (He et al., 2015), or `initial` where `fan_in` is 0.

    A parameter with a `fan_in` is a weight, and L2 applies to it; one without is a bias, and L2 does not. A statistic
    is not learned but measured in training: no optimizer sees it, and its "gradient" is by how much it is off, times N.
    """

    name: str
    shape: Shape
    fan_in: int = 0
    initial: float = 0.0
    statistic: bool = False


class ParameterVector:
    """A flat `vector` in which each parameter is a view under its name: `parameters["conv1.weight"]`.

    What is `learned` comes first, the `statistics` after it; both are views of the vector.
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
        # The views of a copy are views of its own vector.
        return ParameterVector, (self.parameters, self.vector)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @classmethod
    def zeros(cls, parameters: Sequence[Parameter], dtype: npt.DTypeLike) -> "ParameterVector":
        """Lay out the parameters in a new vector of zeros."""
        return cls(parameters, np.zeros(sum(math.prod(p.shape) for p in parameters), dtype))

    def initialize(self, seed: int) -> None:
        """Draw every parameter, from a generator of its own: `seed` and the parameter's name decide its values."""
        for p in self.parameters:
            generator = np.random.default_rng([seed, zlib.crc32(p.name.encode())])
            drawn = math.sqrt(2 / p.fan_in) * generator.standard_normal(p.shape) if p.fan_in else p.initial
            self[p.name][...] = drawn

    def weights(self) -> Array:
        """Return a vector laid out as `learned`: 1 for each entry of a weight, 0 for each of a bias."""
        marks = ParameterVector.zeros(self.parameters, self.vector.dtype)
        for p in self.parameters:
            marks[p.name][...] = p.fan_in > 0
        return marks.learned

    def assign(self, name: str, values: npt.NDArray[np.generic], where: str) -> None:
        """Overwrite one parameter; raises InputError when the shape is another."""
        if values.shape != self[name].shape:
            raise InputError(f"{where}: {name}", self[name].shape, values.shape)
        self[name][...] = values
