"""The fast room: each 2-D convolution is lowered together with the pooling and ReLU that follow it, row by row.

It computes the same as the layers one by one. Their own rooms hold the readable form, and the tests compare the two.
"""

from lowered_cnn.fusion.fused import fuse

__all__ = ["fuse"]
