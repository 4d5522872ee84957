"""One module per kind of layer: the description and, beside it, its lowered form."""

from lowered_cnn.layers.activation import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from lowered_cnn.layers.branches import Concatenate, Residual
from lowered_cnn.layers.container import Container, Sequential
from lowered_cnn.layers.conv import Conv1D, Conv2D, Conv3D
from lowered_cnn.layers.conv_transpose import ConvTranspose1D, ConvTranspose2D, ConvTranspose3D
from lowered_cnn.layers.dense import Dense
from lowered_cnn.layers.dropout import Dropout
from lowered_cnn.layers.graph import Graph, Input, Node
from lowered_cnn.layers.join import Add, Concat, Join, LoweredJoin, Meeting, Multiply
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.layers.normalization import BatchNorm, LayerNorm
from lowered_cnn.layers.pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from lowered_cnn.layers.reshape import Flatten, Pad

__all__ = [
    "ELU",
    "GELU",
    "Add",
    "AvgPool",
    "BatchNorm",
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
    "Input",
    "Join",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Lowered",
    "LoweredJoin",
    "MaxPool",
    "Meeting",
    "Multiply",
    "Node",
    "Pad",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Site",
    "Softmax",
    "Tanh",
]
