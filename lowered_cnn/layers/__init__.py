"""One module per kind of layer: the description and, beside it, its lowered form."""

from typing import TYPE_CHECKING

from lowered_cnn.on_demand import on_demand

if TYPE_CHECKING:  # the names of the table below
    from lowered_cnn.layers.activation import ELU as ELU
    from lowered_cnn.layers.activation import GELU as GELU
    from lowered_cnn.layers.activation import Clip as Clip
    from lowered_cnn.layers.activation import HardSigmoid as HardSigmoid
    from lowered_cnn.layers.activation import HardSwish as HardSwish
    from lowered_cnn.layers.activation import LeakyReLU as LeakyReLU
    from lowered_cnn.layers.activation import LogSoftmax as LogSoftmax
    from lowered_cnn.layers.activation import PReLU as PReLU
    from lowered_cnn.layers.activation import ReLU as ReLU
    from lowered_cnn.layers.activation import Sigmoid as Sigmoid
    from lowered_cnn.layers.activation import SiLU as SiLU
    from lowered_cnn.layers.activation import Softmax as Softmax
    from lowered_cnn.layers.activation import Tanh as Tanh
    from lowered_cnn.layers.branches import Concatenate as Concatenate
    from lowered_cnn.layers.branches import Residual as Residual
    from lowered_cnn.layers.container import Sequential as Sequential
    from lowered_cnn.layers.conv import Conv1D as Conv1D
    from lowered_cnn.layers.conv import Conv2D as Conv2D
    from lowered_cnn.layers.conv import Conv3D as Conv3D
    from lowered_cnn.layers.conv_transpose import ConvTranspose1D as ConvTranspose1D
    from lowered_cnn.layers.conv_transpose import ConvTranspose2D as ConvTranspose2D
    from lowered_cnn.layers.conv_transpose import ConvTranspose3D as ConvTranspose3D
    from lowered_cnn.layers.dense import Dense as Dense
    from lowered_cnn.layers.dropout import Dropout as Dropout
    from lowered_cnn.layers.graph import Graph as Graph
    from lowered_cnn.layers.graph import Input as Input
    from lowered_cnn.layers.graph import Node as Node
    from lowered_cnn.layers.join import Add as Add
    from lowered_cnn.layers.join import Concat as Concat
    from lowered_cnn.layers.join import Join as Join
    from lowered_cnn.layers.join import JoinSite as JoinSite
    from lowered_cnn.layers.join import LoweredJoin as LoweredJoin
    from lowered_cnn.layers.join import Multiply as Multiply
    from lowered_cnn.layers.layer import Layer as Layer
    from lowered_cnn.layers.layer import Lowered as Lowered
    from lowered_cnn.layers.layer import Site as Site
    from lowered_cnn.layers.lrn import LRN as LRN
    from lowered_cnn.layers.normalization import BatchNorm as BatchNorm
    from lowered_cnn.layers.normalization import GroupNorm as GroupNorm
    from lowered_cnn.layers.normalization import InstanceNorm as InstanceNorm
    from lowered_cnn.layers.normalization import LayerNorm as LayerNorm
    from lowered_cnn.layers.pool import AvgPool as AvgPool
    from lowered_cnn.layers.pool import GlobalAvgPool as GlobalAvgPool
    from lowered_cnn.layers.pool import GlobalMaxPool as GlobalMaxPool
    from lowered_cnn.layers.pool import MaxPool as MaxPool
    from lowered_cnn.layers.reshape import ChannelShuffle as ChannelShuffle
    from lowered_cnn.layers.reshape import Flatten as Flatten
    from lowered_cnn.layers.reshape import Pad as Pad
    from lowered_cnn.layers.reshape import PixelShuffle as PixelShuffle
    from lowered_cnn.layers.reshape import Reshape as Reshape
    from lowered_cnn.layers.reshape import Slice as Slice
    from lowered_cnn.layers.reshape import Transpose as Transpose
    from lowered_cnn.layers.resize import AdaptiveAvgPool as AdaptiveAvgPool
    from lowered_cnn.layers.resize import Resize as Resize
    from lowered_cnn.layers.scale import Scale as Scale
    from lowered_cnn.layers.standardize import Standardize as Standardize
else:
    __all__, __getattr__, __dir__ = on_demand(
        __name__,
        {
            "activation": "ELU GELU Clip HardSigmoid HardSwish LeakyReLU LogSoftmax PReLU ReLU "
            "Sigmoid SiLU Softmax Tanh",
            "branches": "Concatenate Residual",
            "container": "Sequential",
            "conv": "Conv1D Conv2D Conv3D",
            "conv_transpose": "ConvTranspose1D ConvTranspose2D ConvTranspose3D",
            "dense": "Dense",
            "dropout": "Dropout",
            "graph": "Graph Input Node",
            "join": "Add Concat Join JoinSite LoweredJoin Multiply",
            "layer": "Layer Lowered Site",
            "lrn": "LRN",
            "normalization": "BatchNorm GroupNorm InstanceNorm LayerNorm",
            "pool": "AvgPool GlobalAvgPool GlobalMaxPool MaxPool",
            "reshape": "ChannelShuffle Flatten Pad PixelShuffle Reshape Slice Transpose",
            "resize": "AdaptiveAvgPool Resize",
            "scale": "Scale",
            "standardize": "Standardize",
        },
    )
