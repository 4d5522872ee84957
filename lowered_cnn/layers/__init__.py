"""One room for each kind of layer: the description and, beside it, its lowered form."""

from lowered_cnn.layers.activation import ReLU
from lowered_cnn.layers.container import Sequential
from lowered_cnn.layers.conv import Conv1D, Conv2D, Conv3D
from lowered_cnn.layers.dense import Dense
from lowered_cnn.layers.dropout import Dropout
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.layers.normalization import BatchNorm
from lowered_cnn.layers.pool import AvgPool, GlobalAvgPool, MaxPool
from lowered_cnn.layers.reshape import Flatten

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "Lowered",
    "MaxPool",
    "ReLU",
    "Sequential",
    "Site",
]
