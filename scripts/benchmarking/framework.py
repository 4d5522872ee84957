"""What a framework must do to be measured: train, and predict."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarking.timing import Timed
from lowered_cnn import Network
from lowered_cnn.arrays import Labels
from lowered_cnn.optimizers import SGD

OPTIMIZER = SGD(learning_rate=0.01, momentum=0.9)
BATCHES = 8

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """The mode of a framework, the number of images at a time, and the number of cores."""

    mode: str
    batch: int
    cores: int


class Framework(ABC):
    """One network in one framework, in a process in which nothing else computes."""

    def __init__(self, network: Network, setting: Setting) -> None:
        self.network = network
        self.setting = setting

    def training(self) -> Timed:
        """Return steps of SGD with momentum on random images: forward, loss, backward, update."""
        raise NotImplementedError(f"{type(self).__name__} does not train")

    @abstractmethod
    def inference(self) -> Timed:
        """Return predictions for random images in memory, in the framework's own kind of array."""

    @abstractmethod
    def predict(self, images: Floats) -> Floats:
        """Return the outputs (N, classes) for images (N, C, H, W)."""

    def kernels(self) -> str:
        """Return the kernels that the framework says it uses here, or ""."""
        return ""

    def product(self) -> Timed:
        """Return the inference of a network that is one dense layer: the fastest product that the framework has."""
        return self.inference()

    def images(self, batches: int = BATCHES) -> list[Floats]:
        """Draw batches of images (N, C, H, W) from 0 to 1."""
        shape = (batches, self.setting.batch, *self.network.input_shape)
        return list(np.random.default_rng(0).random(shape, np.float32))

    def labels(self) -> list[Labels]:
        """Draw the class numbers for as many batches."""
        return list(np.random.default_rng(1).integers(0, 10, (BATCHES, self.setting.batch)))
