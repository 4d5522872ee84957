"""Max pooling of rows while they are in cache, and its gradient."""

from collections.abc import Sequence

import numpy as np

from lowered_cnn.arrays import Array, Mask, Shape
from lowered_cnn.layers import Site


class Maxima:
    """The maximum of each PH x PW patch, along the width and then the height, so that the first of equals wins.

    Gates record each comparison: true where the later tap won.
    """

    def __init__(self, patch: Shape, output: Shape, most: int, site: Site) -> None:
        down, across = self.patch = patch
        filters, height, width = output
        half, new, mask = (filters, width // across, site.batch), site.workspace.array, site.workspace.mask
        pooled = int(patch != (1, 1))
        self.half = new((pooled * most, *half))
        self.highest = new((pooled * (most // down), *half))
        self.across = mask((across - 1, height, *half))
        self.down = mask((down - 1, height // down, *half))
        self.gate = new((most, *half))

    def forward(self, z: Array, first: int) -> Array:
        """Return the maxima (rows / PH, K, OW / PW, N) of z (rows, K, OW / PW, PW, N), which starts at row `first`."""
        down, across = self.patch
        rows, patches = self._places(first, len(z))
        half = _fold([z[:, :, :, b] for b in range(across)], self.across[:, rows], self.half[: len(z)])
        return _fold([half[a::down] for a in range(down)], self.down[:, patches], self.highest[: len(z) // down])

    def backward(self, dy: Array, first: int, dz: Array) -> None:
        """Write dz (rows, K, OW / PW, PW, N) for dy (rows / PH, K, OW / PW, N): dy where the maxima were, else 0."""
        down, across = self.patch
        rows, patches = self._places(first, len(dz))
        half = self.half[: len(dz)] if down > 1 else dy
        if down > 1:
            _unfold(dy, self.down[:, patches], self.gate[: len(dz) // down], [half[a::down] for a in range(down)])
        _unfold(half, self.across[:, rows], self.gate[: len(dz)], [dz[:, :, :, b] for b in range(across)])

    def _places(self, first: int, count: int) -> tuple[slice, slice]:
        return slice(first, first + count), slice(first // self.patch[0], (first + count) // self.patch[0])


def _fold(taps: Sequence[Array], gates: Mask, out: Array) -> Array:
    """Return the maximum of all taps, and write the gates."""
    highest = taps[0]
    for gate, tap in zip(gates, taps[1:], strict=True):
        np.less(highest, tap, out=gate)
        highest = np.maximum(highest, tap, out=out)
    return highest


def _unfold(dy: Array, gates: Mask, gate: Array, taps: Sequence[Array]) -> None:
    """Write dy into the tap that won, and zero into all others."""
    if len(taps) == 1:
        np.copyto(taps[0], dy)
    for won, tap in zip(gates[::-1], taps[:0:-1], strict=True):
        # Converted to numbers first: NumPy multiplies by numbers twice as fast as by booleans.
        np.copyto(gate, won)
        np.multiply(dy, gate, out=tap)
        dy = np.subtract(dy, tap, out=taps[0])
