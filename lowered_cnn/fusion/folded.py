"""A convolution and the batch normalization after it as one convolution, for inference."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers import BatchNorm, Conv2D, Layer, Lowered, Site
from lowered_cnn.layers.conv import Conv
from lowered_cnn.parameters import ParameterVector


@dataclass(frozen=True)
class Folded(Layer):
    """y = f(scale conv(x) + shift): the normalization `norm`, a layer named `norm_name`, is folded into `conv`.

    `whole` is the convolution with a bias, together with f, whatever it is fused with.
    """

    conv: Conv
    norm: BatchNorm
    norm_name: str
    whole: Layer

    kind: ClassVar[str] = Conv2D.kind

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the output shape of `whole`."""
        return self.whole.output_shape(input_shape, name)

    def lower(self, site: Site) -> Lowered:
        """Return `whole`, lowered with parameters of its own."""
        return _LoweredFolded(self, site)


class _LoweredFolded(Lowered):
    def __init__(self, folded: Folded, site: Site) -> None:
        self.folded, self.site, self.norm_site = folded, site, site.sibling(folded.norm_name)
        own = [replace(p, name=f"{site.owner}.{p.name}") for p in folded.whole.parameters(site.input_shape)]
        self.whole_site = replace(site, parameters=ParameterVector.zeros(own, site.workspace.dtype))
        self.whole = folded.whole.lower(self.whole_site)

    def forward(self, x: Array) -> Array:
        """Fold the current parameters into weight scale and bias scale + shift, and run `whole`."""
        scale, shift = self.folded.norm.scale_and_shift(self.norm_site)
        weight = self.whole_site.parameter("weight")
        np.multiply(self.site.parameter("weight").T, scale, out=weight.T)
        bias = self.site.parameter("bias") * scale if self.folded.conv.bias else 0
        np.add(bias, shift, out=self.whole_site.parameter("bias"))
        return self.whole.forward(x)

    def backward(self, dy: Array) -> Array | None:
        """Not available: folding is for inference without gradients."""
        raise NotImplementedError
