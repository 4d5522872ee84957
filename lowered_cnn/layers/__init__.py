"""One module per kind of layer: the description and, beside it, its lowered form."""

from lowered_cnn.layers.activation import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from lowered_cnn.layers.container import Concatenate, Residual, Sequential
from lowered_cnn.layers.conv import Conv1D, Conv2D, Conv3D
from lowered_cnn.layers.conv_transpose import ConvTranspose1D, ConvTranspose2D, ConvTranspose3D
from lowered_cnn.layers.dense import Dense
from lowered_cnn.layers.dropout import Dropout
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.layers.normalization import BatchNorm, LayerNorm
from lowered_cnn.layers.pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from lowered_cnn.layers.reshape import Flatten, Pad
from lowered_cnn.layers.standardize import Standardize

__all__ = [
    "ELU",
    "GELU",
    "AvgPool",
    "BatchNorm",
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
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Lowered",
    "MaxPool",
    "Pad",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Site",
    "Softmax",
    "Standardize",
    "Tanh",
]
