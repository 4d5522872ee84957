"""Colours for numbers: from 0 up, or around 0, with a legend."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Bytes

CIVIDIS = "#00224d #003070 #2a3f6d #434e6b #575d6d #696b71 #7c7b78 #908b77 #a59b73 #baac6c #d0be60 #e9d24d #fde737"
"""Equal steps look equal, also to the colour-blind (Nunez, Anderton and Renslow, 2018)."""

DIVERGING = "#08345c #2f74b3 #8fbbe0 #f5f5f5 #f2b27a #c8670f #6b2f00"
"""Blue for negative numbers, orange for positive ones, and nearly white for 0."""


@dataclass(frozen=True)
class Scale:
    """The numbers from `low` to `high`, in the colours of a map; `low` is 0, or -`high`."""

    low: float
    high: float

    @classmethod
    def of(cls, numbers: Array) -> "Scale":
        """Return a scale for all of these numbers, from 0 if none is negative."""
        most = float(np.abs(numbers).max(initial=0.0)) or 1.0
        return cls(-most if numbers.min(initial=0.0) < 0 else 0.0, most)

    @property
    def colours(self) -> str:
        """The colours at equal distances, from the lowest number to the highest."""
        return DIVERGING if self.low < 0 else CIVIDIS

    def pixels(self, numbers: Array) -> Bytes:
        """Return the colour of each number: (..., 3)."""
        stops: npt.NDArray[np.int64] = np.array([list(bytes.fromhex(stop[1:])) for stop in self.colours.split()])
        places = (numbers - self.low) / (self.high - self.low) * (len(stops) - 1)
        colours = [np.interp(places, np.arange(len(stops)), channel) for channel in stops.T]
        return np.stack(colours, axis=-1).round().astype(np.uint8)

    def html(self) -> str:
        """Return a legend."""
        low, high = str(self).split(" to ")
        strip = f'<i style="background: linear-gradient(90deg, {", ".join(self.colours.split())})"></i>'
        return f'<div class="legend"><span>{low}</span>{strip}<span>{high}</span></div>'

    def __str__(self) -> str:
        return f"{self.low:.2g} to {self.high:.2g}".replace("-", "\N{MINUS SIGN}")
