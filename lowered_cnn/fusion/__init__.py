"""The fast room: each 2-D convolution is lowered together with the pooling and ReLU that follow it, row by row.

What it computes is what the layers compute one by one; their own rooms hold the readable form, which the tests compare.
"""

from lowered_cnn.fusion.fused import fuse

__all__ = ["fuse"]
