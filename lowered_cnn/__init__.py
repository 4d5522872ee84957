"""Convolutional neural networks in which every linear layer is a matrix product, on a core of plain NumPy."""

from typing import TYPE_CHECKING

from lowered_cnn import launch  # noqa: F401 (first: the command line hears Ctrl-C while the rest is imported)

# isort: split
from lowered_cnn import layers
from lowered_cnn.on_demand import on_demand

__version__ = "0.1.0"

if TYPE_CHECKING:  # the names of the table below
    from lowered_cnn.arrays import InputError as InputError
    from lowered_cnn.augmentation import Augmentation as Augmentation
    from lowered_cnn.data import Dataset as Dataset
    from lowered_cnn.data import Examples as Examples
    from lowered_cnn.data import Splits as Splits
    from lowered_cnn.data import load_mnist as load_mnist
    from lowered_cnn.layers import ELU as ELU
    from lowered_cnn.layers import GELU as GELU
    from lowered_cnn.layers import LRN as LRN
    from lowered_cnn.layers import AdaptiveAvgPool as AdaptiveAvgPool
    from lowered_cnn.layers import Add as Add
    from lowered_cnn.layers import AvgPool as AvgPool
    from lowered_cnn.layers import BatchNorm as BatchNorm
    from lowered_cnn.layers import ChannelShuffle as ChannelShuffle
    from lowered_cnn.layers import Clip as Clip
    from lowered_cnn.layers import Concat as Concat
    from lowered_cnn.layers import Concatenate as Concatenate
    from lowered_cnn.layers import Conv1D as Conv1D
    from lowered_cnn.layers import Conv2D as Conv2D
    from lowered_cnn.layers import Conv3D as Conv3D
    from lowered_cnn.layers import ConvTranspose1D as ConvTranspose1D
    from lowered_cnn.layers import ConvTranspose2D as ConvTranspose2D
    from lowered_cnn.layers import ConvTranspose3D as ConvTranspose3D
    from lowered_cnn.layers import Dense as Dense
    from lowered_cnn.layers import Dropout as Dropout
    from lowered_cnn.layers import Flatten as Flatten
    from lowered_cnn.layers import GlobalAvgPool as GlobalAvgPool
    from lowered_cnn.layers import GlobalMaxPool as GlobalMaxPool
    from lowered_cnn.layers import Graph as Graph
    from lowered_cnn.layers import GroupNorm as GroupNorm
    from lowered_cnn.layers import HardSigmoid as HardSigmoid
    from lowered_cnn.layers import HardSwish as HardSwish
    from lowered_cnn.layers import Input as Input
    from lowered_cnn.layers import InstanceNorm as InstanceNorm
    from lowered_cnn.layers import Join as Join
    from lowered_cnn.layers import JoinSite as JoinSite
    from lowered_cnn.layers import Layer as Layer
    from lowered_cnn.layers import LayerNorm as LayerNorm
    from lowered_cnn.layers import LeakyReLU as LeakyReLU
    from lowered_cnn.layers import LogSoftmax as LogSoftmax
    from lowered_cnn.layers import Lowered as Lowered
    from lowered_cnn.layers import LoweredJoin as LoweredJoin
    from lowered_cnn.layers import MaxPool as MaxPool
    from lowered_cnn.layers import Multiply as Multiply
    from lowered_cnn.layers import Node as Node
    from lowered_cnn.layers import Pad as Pad
    from lowered_cnn.layers import PixelShuffle as PixelShuffle
    from lowered_cnn.layers import PReLU as PReLU
    from lowered_cnn.layers import ReLU as ReLU
    from lowered_cnn.layers import Reshape as Reshape
    from lowered_cnn.layers import Residual as Residual
    from lowered_cnn.layers import Resize as Resize
    from lowered_cnn.layers import Scale as Scale
    from lowered_cnn.layers import Sequential as Sequential
    from lowered_cnn.layers import Sigmoid as Sigmoid
    from lowered_cnn.layers import SiLU as SiLU
    from lowered_cnn.layers import Site as Site
    from lowered_cnn.layers import Slice as Slice
    from lowered_cnn.layers import Softmax as Softmax
    from lowered_cnn.layers import Standardize as Standardize
    from lowered_cnn.layers import Tanh as Tanh
    from lowered_cnn.layers import Transpose as Transpose
    from lowered_cnn.ledger import summary as summary
    from lowered_cnn.losses import BinaryCrossEntropy as BinaryCrossEntropy
    from lowered_cnn.losses import Huber as Huber
    from lowered_cnn.losses import Loss as Loss
    from lowered_cnn.losses import MeanAbsoluteError as MeanAbsoluteError
    from lowered_cnn.losses import MeanSquaredError as MeanSquaredError
    from lowered_cnn.losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
    from lowered_cnn.losses import softmax as softmax
    from lowered_cnn.lowering import col2im as col2im
    from lowered_cnn.lowering import im2col as im2col
    from lowered_cnn.network import Gradient as Gradient
    from lowered_cnn.network import Network as Network
    from lowered_cnn.optimizers import SGD as SGD
    from lowered_cnn.optimizers import Adam as Adam
    from lowered_cnn.optimizers import AdamW as AdamW
    from lowered_cnn.optimizers import Optimizer as Optimizer
    from lowered_cnn.optimizers import RMSprop as RMSprop
    from lowered_cnn.parameters import Copied as Copied
    from lowered_cnn.parameters import Parameter as Parameter
    from lowered_cnn.parameters import ParameterVector as ParameterVector
    from lowered_cnn.schedules import Constant as Constant
    from lowered_cnn.schedules import Cosine as Cosine
    from lowered_cnn.schedules import OneCycle as OneCycle
    from lowered_cnn.schedules import Plateau as Plateau
    from lowered_cnn.schedules import Schedule as Schedule
    from lowered_cnn.schedules import StepDecay as StepDecay
    from lowered_cnn.storage import load as load
    from lowered_cnn.storage import save as save
    from lowered_cnn.timing import Timing as Timing
    from lowered_cnn.timing import Timings as Timings
    from lowered_cnn.timing import timings as timings
    from lowered_cnn.tracing import Trace as Trace
    from lowered_cnn.tracing import trace as trace
    from lowered_cnn.training import Confusion as Confusion
    from lowered_cnn.training import Evaluation as Evaluation
    from lowered_cnn.training import Recipe as Recipe
    from lowered_cnn.training import Record as Record
    from lowered_cnn.training import State as State
    from lowered_cnn.training import Training as Training
    from lowered_cnn.training import evaluate as evaluate
    from lowered_cnn.training import fit as fit
    from lowered_cnn.training import train as train
    from lowered_cnn.training.confusion import confusion as confusion
    from lowered_cnn.window import Window as Window

    __all__: list[str]
else:
    __all__, __getattr__, __dir__ = on_demand(
        __name__,
        {
            "arrays": "InputError",
            "augmentation": "Augmentation",
            "data": "Dataset Examples Splits load_mnist",
            "layers": " ".join(layers.__all__),
            "ledger": "summary",
            "losses": "BinaryCrossEntropy Huber Loss MeanAbsoluteError MeanSquaredError SoftmaxCrossEntropy softmax",
            "lowering": "col2im im2col",
            "network": "Gradient Network",
            "optimizers": "SGD Adam AdamW Optimizer RMSprop",
            "parameters": "Copied Parameter ParameterVector",
            "schedules": "Constant Cosine OneCycle Plateau Schedule StepDecay",
            "storage": "load save",
            "timing": "Timing Timings timings",
            "tracing": "Trace trace",
            "training": "Confusion Evaluation Recipe Record State Training confusion evaluate fit train",
            "window": "Window",
        },
    )
