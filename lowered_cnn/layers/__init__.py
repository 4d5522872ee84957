"""One module per kind of layer: the description and, beside it, its lowered form."""

from lowered_cnn.layers.activation import (
    ELU,
    GELU,
    Clip,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from lowered_cnn.layers.container import Concatenate, Residual, Sequential
from lowered_cnn.layers.conv import Conv1D, Conv2D, Conv3D
from lowered_cnn.layers.conv_transpose import ConvTranspose1D, ConvTranspose2D, ConvTranspose3D
from lowered_cnn.layers.dense import Dense
from lowered_cnn.layers.dropout import Dropout
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.layers.lrn import LRN
from lowered_cnn.layers.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from lowered_cnn.layers.pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from lowered_cnn.layers.reshape import ChannelShuffle, Flatten, Pad, PixelShuffle, Reshape, Slice, Transpose
from lowered_cnn.layers.resize import AdaptiveAvgPool, Resize
from lowered_cnn.layers.scale import Scale

__all__ = [
    "ELU",
    "GELU",
    "LRN",
    "AdaptiveAvgPool",
    "AvgPool",
    "BatchNorm",
    "ChannelShuffle",
    "Clip",
    "Concatenate",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "ConvTranspose3D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Lowered",
    "MaxPool",
    "PReLU",
    "Pad",
    "PixelShuffle",
    "ReLU",
    "Reshape",
    "Residual",
    "Resize",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Site",
    "Slice",
    "Softmax",
    "Tanh",
    "Transpose",
]
