"""Convolutional neural networks in which everything is a matrix product, with NumPy alone at the core."""

from lowered_cnn.arrays import InputError
from lowered_cnn.augmentation import Augmentation
from lowered_cnn.data import Dataset, Splits, load_mnist
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
    MaxPool,
    Pad,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from lowered_cnn.ledger import summary
from lowered_cnn.losses import MeanSquaredError, SoftmaxCrossEntropy, softmax
from lowered_cnn.lowering import col2im, im2col
from lowered_cnn.network import Network
from lowered_cnn.optimizers import SGD, Adam, AdamW
from lowered_cnn.schedules import Constant, Cosine, OneCycle, StepDecay
from lowered_cnn.storage import load, save
from lowered_cnn.training import Recipe, Record, Training, evaluate, train
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
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "InputError",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool",
    "MeanSquaredError",
    "Network",
    "OneCycle",
    "Pad",
    "ReLU",
    "Recipe",
    "Record",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Splits",
    "StepDecay",
    "Tanh",
    "Training",
    "Window",
    "col2im",
    "evaluate",
    "im2col",
    "load",
    "load_mnist",
    "save",
    "softmax",
    "summary",
    "train",
]
