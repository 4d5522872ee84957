"""A convolution and the batch normalization behind it as one convolution, for inference."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers import BatchNorm, Conv2D, Layer, Lowered, Site
from lowered_cnn.layers.conv import Conv
from lowered_cnn.parameters import ParameterVector


@dataclass(frozen=True)
class Folded(Layer):
    """y = f(scale conv(x) + shift), with the numbers of `norm`, the layer called `norm_name`, in the filters of `conv`.

    `whole` is the convolution with a bias, and whatever it was fused with, f.
    """

    conv: Conv
    norm: BatchNorm
    norm_name: str
    whole: Layer

    kind: ClassVar[str] = Conv2D.kind

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the output's shape of the whole."""
        return self.whole.output_shape(input_shape, name)

    def lower(self, site: Site) -> Lowered:
        """Return the whole, with parameters of its own."""
        return _LoweredFolded(self, site)


class _LoweredFolded(Lowered):
    def __init__(self, folded: Folded, site: Site) -> None:
        self.folded, self.site, self.norm_site = folded, site, site.sibling(folded.norm_name)
        own = [replace(p, name=f"{site.name}.{p.name}") for p in folded.whole.parameters(site.input_shape)]
        self.whole_site = replace(site, parameters=ParameterVector.zeros(own, site.workspace.dtype))
        self.whole = folded.whole.lower(self.whole_site)

    def forward(self, x: Array) -> Array:
        """Fold the numbers as they are now, and run the whole: weight scale, bias scale + shift."""
        scale, shift = self.folded.norm.scale_and_shift(self.norm_site)
        weight = self.whole_site.parameter("weight")
        np.multiply(self.site.parameter("weight").T, scale, out=weight.T)
        bias = self.site.parameter("bias") * scale if self.folded.conv.bias else 0
        np.add(bias, shift, out=self.whole_site.parameter("bias"))
        return self.whole.forward(x)

    def backward(self, dy: Array) -> Array | None:
        """Inference has no gradient."""
        raise NotImplementedError
