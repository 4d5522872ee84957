"""The equations S1 to S4, S6 and S7 of the derivation as plain loops over activations (C, *size, N).

They are the reference for everything: nothing is shared with the lowering, and nothing is clever. Each axis has its
loop, except sometimes the batch, the last one. An index holds one number per axis, so the same lines are right for 1, 2
and 3 dimensions: ``z[k, *i]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Array, Shape


@dataclass(frozen=True)
class Slide:
    """A window with ``kernel`` taps on each axis, and how it slides; ``padding`` is a pair (before, after) per axis."""

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape

    def output(self, size: Shape) -> Shape:
        """Count the positions at which the whole window lies inside the padded input, per axis."""
        return tuple(
            len(range(-before, h + after - d * (k - 1), s))
            for h, k, s, (before, after), d in zip(
                size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def source(self, position: Sequence[int], tap: Sequence[int]) -> Shape:
        """Return the index of the input that a tap of the window at this position reads: i S + a D - P."""
        axes = zip(position, self.stride, tap, self.dilation, self.padding, strict=True)
        return tuple(i * s + a * d - p[0] for i, s, a, d, p in axes)


def same_padding(size: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[tuple[int, int], ...]:
    """Search for the smallest padding that gives ``ceil(size / stride)`` positions; if odd, it is longer at the end."""

    def search(h: int, k: int, s: int, d: int) -> tuple[int, int]:
        total = 0
        while len(range(0, h + total - d * (k - 1), s)) * s < h:
            total += 1
        return total // 2, total - total // 2

    return tuple(map(search, size, kernel, stride, dilation))


def inside(index: Shape, size: Shape) -> bool:
    """Return whether an index lies in the input; everything outside is zero."""
    return all(0 <= i < h for i, h in zip(index, size, strict=True))


def convolution_at(x: Array, weight: Array, bias: Array, slide: Slide, groups: int, place: Shape) -> Array:
    """Z[k, i] = sum over c, a of weight[k, c, a] X[c, i S + a D - P] + bias[k] (S1), for place = (k, *i): (N).

    weight is (K, C / groups, *kernel); the filters of a group see that group's channels, from ``first`` on.
    """
    k, *i = place
    first = k // (len(weight) // groups) * weight.shape[1]
    z = np.full(x.shape[-1], bias[k], x.dtype)
    for c, *a in np.ndindex(weight.shape[1:]):
        p = slide.source(i, a)
        if inside(p, x.shape[1:-1]):
            z += weight[k, c, *a] * x[first + c, *p]
    return z


def forward(x: Array, weight: Array, bias: Array, slide: Slide, groups: int = 1) -> Array:
    """Return all of Z (K, *output size, N) (S1)."""
    z = np.zeros((len(weight), *slide.output(x.shape[1:-1]), x.shape[-1]))
    for place in np.ndindex(z.shape[:-1]):
        z[place] = convolution_at(x, weight, bias, slide, groups, place)
    return z


def transposed_at(x: Array, weight: Array, bias: Array, slide: Slide, groups: int, place: Shape) -> Array:
    """Y[k, p] = bias[k] + sum over c and those i, a with p = i S + a D - P of weight[c, k, a] X[c, i]: (N).

    weight is (C, K / groups, *kernel); the window slides over the output.
    """
    k, *p = place
    channels = len(weight) // groups
    group, own = divmod(k, weight.shape[1])
    y = np.full(x.shape[-1], bias[k], x.dtype)
    for i in np.ndindex(x.shape[1:-1]):
        for a in np.ndindex(slide.kernel):
            if slide.source(i, a) == tuple(p):
                for c in range(group * channels, (group + 1) * channels):
                    y += weight[c, own, *a] * x[c, *i]
    return y


def gradients(dz: Array, x: Array, weight: Array, slide: Slide, groups: int = 1) -> tuple[Array, Array, Array]:
    """Return dx, dweight and dbias: every product in the forward pass sends dZ to both of its factors.

    dweight[k, c, a] = sum over n, i of dZ[k, i] X[c, i S + a D - P] (S2); dbias[k] = sum over n, i of dZ[k, i] (S3);
    dx[c, p] = sum over k and those i, a with p = i S + a D - P of dZ[k, i] weight[k, c, a] (S4).
    """
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(len(weight))
    for k, *i in np.ndindex(dz.shape[:-1]):
        first = k // (len(weight) // groups) * weight.shape[1]
        dbias[k] += dz[k, *i].sum()
        for c, *a in np.ndindex(weight.shape[1:]):
            p = slide.source(i, a)
            if inside(p, x.shape[1:-1]):
                dweight[k, c, *a] += (dz[k, *i] * x[first + c, *p]).sum()
                dx[first + c, *p] += dz[k, *i] * weight[k, c, *a]
    return dx, dweight, dbias


def input_gradient_as_convolution(dz: Array, weight: Array, slide: Slide) -> Array:
    """Return dx by the second reading of S4: the convolution of the padded dZ with the flipped filter (stride 1).

    dZ is padded until the first window touches it with one tap only; the border of X is then cut off.
    """
    span = [d * (k - 1) for k, d in zip(slide.kernel, slide.dilation, strict=True)]
    flipped = np.flip(weight, axis=tuple(range(2, weight.ndim))).swapaxes(0, 1)
    full = Slide(slide.kernel, slide.stride, tuple((s, s) for s in span), slide.dilation)
    padded = forward(dz, flipped, np.zeros(len(flipped)), full)
    crop = (slice(p[0], n - p[1]) for n, p in zip(padded.shape[1:-1], slide.padding, strict=True))
    return padded[:, *crop]


def patch(slide: Slide, position: Sequence[int], size: Shape) -> list[Shape]:
    """List the inputs under the window at this position, in row-major order, excluding the border."""
    sources = (slide.source(position, tap) for tap in np.ndindex(slide.kernel))
    return [p for p in sources if inside(p, size)]


def max_pool(x: Array, slide: Slide, dy: Array) -> tuple[Array, Array]:
    """Return y, the maximum of each patch, and dx, where the first of the largest inputs gets the patch's dy (S6)."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for c, *i in np.ndindex(dy.shape[:-1]):
        under = patch(slide, i, x.shape[1:-1])
        for n in range(x.shape[-1]):
            best = under[0]
            for p in under[1:]:
                if x[c, *p, n] > x[c, *best, n]:
                    best = p
            y[c, *i, n] = x[c, *best, n]
            dx[c, *best, n] += dy[c, *i, n]
    return y, dx


def avg_pool(x: Array, slide: Slide, dy: Array, count_include_pad: bool = True) -> tuple[Array, Array]:
    """Return y, the mean of each patch, and dx, where the inputs of a patch share its dy equally (S7)."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for c, *i in np.ndindex(dy.shape[:-1]):
        under = patch(slide, i, x.shape[1:-1])
        count = np.prod(slide.kernel) if count_include_pad else len(under)
        for p in under:
            y[c, *i] += x[c, *p] / count
            dx[c, *p] += dy[c, *i] / count
    return y, dx
