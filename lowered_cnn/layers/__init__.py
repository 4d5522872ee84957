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
from lowered_cnn.layers.branches import Concatenate, Residual
from lowered_cnn.layers.container import Container, Sequential
from lowered_cnn.layers.conv import Conv1D, Conv2D, Conv3D
from lowered_cnn.layers.conv_transpose import ConvTranspose1D, ConvTranspose2D, ConvTranspose3D
from lowered_cnn.layers.dense import Dense
from lowered_cnn.layers.dropout import Dropout
from lowered_cnn.layers.graph import Graph, Input, Node
from lowered_cnn.layers.join import Add, Concat, Join, JoinSite, LoweredJoin, Multiply
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.layers.lrn import LRN
from lowered_cnn.layers.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from lowered_cnn.layers.pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from lowered_cnn.layers.reshape import ChannelShuffle, Flatten, Pad, PixelShuffle, Reshape, Slice, Transpose
from lowered_cnn.layers.resize import AdaptiveAvgPool, Resize
from lowered_cnn.layers.scale import Scale
from lowered_cnn.layers.standardize import Standardize

__all__ = [
    "ELU",
    "GELU",
    "LRN",
    "AdaptiveAvgPool",
    "Add",
    "AvgPool",
    "BatchNorm",
    "ChannelShuffle",
    "Clip",
    "Concat",
    "Concatenate",
    "Container",
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
    "Graph",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Input",
    "InstanceNorm",
    "Join",
    "JoinSite",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Lowered",
    "LoweredJoin",
    "MaxPool",
    "Multiply",
    "Node",
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
    "Standardize",
    "Tanh",
    "Transpose",
]
