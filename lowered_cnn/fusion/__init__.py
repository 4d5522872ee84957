"""The fast room: each 2-D convolution is lowered together with the pooling and ReLU that follow it.

It computes the same as the layers one by one, a few rows at a time. At inference it takes in batch normalization, too.
The layers' own modules hold the readable form, and the tests compare the two.
"""

from lowered_cnn.fusion.fused import fuse

__all__ = ["fuse"]
