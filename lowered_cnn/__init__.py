"""Convolutional neural networks in which every linear layer is a matrix product, on a core of plain NumPy."""

from lowered_cnn import launch  # noqa: F401 (first: the command line hears Ctrl-C while the rest is imported)

# isort: split
from lowered_cnn.arrays import InputError
from lowered_cnn.augmentation import Augmentation
from lowered_cnn.data import Dataset, Examples, Splits, load_mnist
from lowered_cnn.layers import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    LayerNorm,
    LeakyReLU,
    Lowered,
    MaxPool,
    Pad,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Site,
    Softmax,
    Standardize,
    Tanh,
)
from lowered_cnn.ledger import summary
from lowered_cnn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy, softmax
from lowered_cnn.lowering import col2im, im2col
from lowered_cnn.network import Gradient, Network
from lowered_cnn.optimizers import SGD, Adam, AdamW, Optimizer
from lowered_cnn.parameters import Parameter, ParameterVector
from lowered_cnn.schedules import Constant, Cosine, OneCycle, Schedule, StepDecay
from lowered_cnn.storage import load, save
from lowered_cnn.tracing import Trace, trace
from lowered_cnn.training import Evaluation, Recipe, Record, State, Training, evaluate, fit, train
from lowered_cnn.window import Window

__version__ = "0.1.0"

__all__ = [
    "ELU",
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "Augmentation",
    "AvgPool",
    "BatchNorm",
    "Concatenate",
    "Constant",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "ConvTranspose3D",
    "Cosine",
    "Dataset",
    "Dense",
    "Dropout",
    "Evaluation",
    "Examples",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Gradient",
    "InputError",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Loss",
    "Lowered",
    "MaxPool",
    "MeanSquaredError",
    "Network",
    "OneCycle",
    "Optimizer",
    "Pad",
    "Parameter",
    "ParameterVector",
    "ReLU",
    "Recipe",
    "Record",
    "Residual",
    "Schedule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Site",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Splits",
    "Standardize",
    "State",
    "StepDecay",
    "Tanh",
    "Trace",
    "Training",
    "Window",
    "col2im",
    "evaluate",
    "fit",
    "im2col",
    "load",
    "load_mnist",
    "save",
    "softmax",
    "summary",
    "trace",
    "train",
]
