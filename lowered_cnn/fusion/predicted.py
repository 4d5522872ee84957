"""A fused convolution for prediction: a list of NumPy calls, made once its input is known.

Then nothing else runs in between, so that one image does not wait for Python, nor another thread for the interpreter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Plan
from lowered_cnn.layers import Lowered

Step: TypeAlias = Callable[[], object]
"""A call whose arrays are known."""

Fold: TypeAlias = Callable[[], tuple[Array | None, Array | None]]
"""Returns what each filter's outputs are multiplied by, and what is added to them."""


class PredictionEngine(ABC):
    """Computes a convolution's outputs z, without bias, for one of the `blocks` of rows at a time.

    z is viewed as (rows / PH, PH PW, K, OW / PW, N): each axis but the second is one of y's, and the second may hold
    maxima over some of the patch.
    """

    blocks: list[tuple[int, int]]

    @abstractmethod
    def read(self, x: Array, scale: Array | None) -> Iterator[Step]:
        """Yield the steps that take the activation x (C, H, W, N) and the weight.

        If there is a `scale` (K), each filter's outputs are multiplied by its scale.
        """

    @abstractmethod
    def forward(self, first: int, last: int) -> Iterator[Step]:
        """Yield the steps that compute z for one block; with pooling, they overwrite that of the block before."""

    @abstractmethod
    def z(self, first: int, last: int) -> Array:
        """View z of one block. Without pooling, z is in the memory of y."""


class PredictedConv(Lowered):
    """y = max(0, max over each patch of z + bias): the outer maximum if `relu`.

    The bias is added after the inner maximum. With `fold`, the engine's scale and the bias come from there before each
    batch.
    """

    def __init__(
        self, plan: Plan, engine: PredictionEngine, y: Array, relu: bool, bias: Array | None, fold: Fold | None
    ) -> None:
        self.engine, self.y, self.relu, self.fold, self.down = engine, y, relu, fold, plan.patch[0]
        self.pooled = plan.patch != (1, 1)
        new = plan.site.workspace.array
        self.scale = None if fold is None else new((len(y),))
        self.bias = bias if fold is None else new((len(y),))
        most = max(last - first for first, last in engine.blocks) // self.down
        self.zeros = plan.site.workspace.zeros((most, *y.shape[2:]))
        self.x = y  # no activation yet: none is where y is
        self.steps: list[Step] = []

    def forward(self, x: Array) -> Array:
        """Take the steps, which are made anew for an x elsewhere in memory."""
        if x is not self.x and x.ctypes.data != self.x.ctypes.data:
            self.x, self.steps = x, list(self._steps(x))
        for step in self.steps:
            step()
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """Not available: this form is for inference without gradients."""
        raise NotImplementedError

    def _steps(self, x: Array) -> Iterator[Step]:
        if self.fold is not None:
            yield partial(self._read_fold, self.fold)
        yield from self.engine.read(x, self.scale)
        for first, last in self.engine.blocks:
            yield from self.engine.forward(first, last)
            yield from self._finish(self.engine.z(first, last), self.y[:, first // self.down : last // self.down])

    def _read_fold(self, fold: Fold) -> None:
        assert self.scale is not None
        assert self.bias is not None
        self.scale[...], self.bias[...] = fold()

    def _finish(self, z: Array, y: Array) -> Iterator[Step]:
        """Yield the steps from z to y (K, rows / PH, OW / PW, N)."""
        relu, highest = self.relu, y.swapaxes(0, 1)
        if self.pooled and z.shape[1] == 2:
            yield partial(np.maximum, z[:, 0], z[:, 1], out=highest)
        elif self.pooled:
            at_once = relu and self.bias is None
            relu = relu and not at_once
            least = {"initial": 0.0} if at_once else {}
            yield partial(np.maximum.reduce, z, axis=1, out=highest, **least)
        if self.bias is not None:
            yield partial(np.add, y, self.bias[:, None, None, None], out=y)
        if relu:
            yield partial(np.maximum, y, self.zeros[: y.shape[1]] if self.zeros.ndim > 2 else self.zeros, out=y)
