"""The package itself: its own training loop on images as bytes, and `predict`."""

from functools import partial

import numpy as np

from benchmarking.framework import OPTIMIZER, Floats, Framework
from benchmarking.timing import Timed
from lowered_cnn import Constant, Dataset, Recipe, train
from lowered_cnn.kernels import blas

IMAGES = 8192
"""The most images in an epoch, which also has at most 64 batches."""


class Measured(Framework):
    """lowered_cnn."""

    def training(self) -> Timed:
        """Return the steps of `train`, from record to record, including gathering the batch and converting bytes."""
        batch = self.setting.batch
        rng, count = np.random.default_rng(0), batch * max(1, min(64, IMAGES // batch))
        images = rng.integers(0, 256, (count, *self.network.input_shape), np.uint8)
        data = Dataset(images, rng.integers(0, 10, count), tuple("0123456789"))
        recipe = Recipe(epochs=10**6, batch_size=batch, optimizer=OPTIMIZER, schedule=Constant())
        records = train(self.network, data, recipe, workers=self.setting.cores)
        return Timed(partial(next, records), close=records.close)

    def inference(self) -> Timed:
        """Return `predict` on floats."""
        return Timed(partial(self.network.predict, self.images(1)[0]))

    def kernels(self) -> str:
        """Return the BLAS that NumPy has."""
        return ", ".join(map(str, blas()))

    def product(self) -> Timed:
        """Return NumPy's product, since `predict` would cut it into chunks."""
        (weight,) = (parameter.T for parameter in self.network.parameters.values())
        images = self.images(1)[0]
        out = np.empty_like(images)
        return Timed(partial(np.matmul, images, weight, out=out))

    def predict(self, images: Floats) -> Floats:
        """Return the outputs of `predict`."""
        return self.network.predict(images).astype(np.float32, copy=False)
