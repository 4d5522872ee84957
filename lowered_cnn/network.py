"""Network: layers with their parameters in one flat vector, and the public door where images come in."""

from collections.abc import Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Shape, check_images, check_shape, whole_number
from lowered_cnn.fusion import fuse
from lowered_cnn.layers import Sequential, Site
from lowered_cnn.layers.layer import Noise
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.workspace import BLOCK_BYTES, Workspace

PREDICT_BATCH = 64
"""How many examples `predict` runs at a time: the activations of small networks then stay in cache."""


class Network:
    """A model with parameters for inputs of one shape.

    `parameters` is the flat vector with named views (`network.parameters["conv1.weight"]`), float32 unless
    `dtype` says float64; its first values follow from `seed`. Raises InputError, with the layer's name, where
    shapes do not fit.
    """

    def __init__(
        self, model: Sequential, input_shape: Sequence[int], *, seed: int = 0, dtype: npt.DTypeLike = np.float32
    ) -> None:
        self.model = model
        lengths = tuple(input_shape) if np.iterable(input_shape) else ()
        if not lengths:
            raise InputError("network: input shape", "at least one length", repr(input_shape))
        self.input_shape: Shape = tuple(whole_number("network: input shape", length, 1) for length in lengths)
        self.output_shape = model.output_shape(self.input_shape, "")
        self.parameters = ParameterVector.zeros(model.parameters(self.input_shape), _precision(dtype))
        self.parameters.initialize(whole_number("network: seed", seed, 0))
        self._inference: dict[int, LoweredNetwork] = {}
        self._predicting = Lock()  # the lowered forms that are kept have one set of buffers for all threads

    def __getstate__(self) -> dict[str, object]:
        kept = ("_inference", "_predicting")
        return {name: value for name, value in vars(self).items() if name not in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _inference={}, _predicting=Lock())

    def lower(
        self,
        batch: int,
        *,
        training: bool = True,
        wants_dx: bool = False,
        seed: int = 0,
        block_bytes: int | None = BLOCK_BYTES,
        fused: bool = True,
    ) -> "LoweredNetwork":
        """Allocate everything for `batch` examples, for `training` or for inference.

        `wants_dx` asks for the gradient of the input too, `seed` is that of the noise in training (Dropout), and
        `block_bytes` None makes each convolution one im2col and one matrix product.
        """
        whole_number("network: batch", batch, 1)
        return LoweredNetwork(self, batch, training, wants_dx, Noise(seed), block_bytes, fused)

    def predict(self, images: npt.NDArray[np.generic]) -> Array:
        """Return the outputs (N, *output shape) for images (N, C, H, W) or (N, H, W), uint8 or float."""
        images = as_batch(images, self.input_shape)
        outputs = np.empty((len(images), *self.output_shape), self.parameters.vector.dtype)
        with self._predicting:
            for start in range(0, len(images), PREDICT_BATCH):
                part = images[start : start + PREDICT_BATCH]
                outputs[start : start + len(part)] = np.moveaxis(self._lowered_for(len(part)).forward(part), -1, 0)
        return outputs

    def _lowered_for(self, batch: int) -> "LoweredNetwork":
        if batch not in self._inference:
            # Two are kept: the full batch and the latest other one.
            self._inference = {n: kept for n, kept in self._inference.items() if n == PREDICT_BATCH}
            self._inference[batch] = self.lower(batch, training=False)
        return self._inference[batch]


def as_batch(images: npt.NDArray[np.generic], input_shape: Shape) -> npt.NDArray[np.generic]:
    """Return images as (N, C, H, W); raises InputError for other shapes than (N, C, H, W) and, if C is 1, (N, H, W)."""
    check_images("network: images", images)
    if images.ndim == len(input_shape) and input_shape[0] == 1:
        images = images[:, None]
    check_shape("network: images", input_shape, images.shape[1:])
    return images


def _precision(dtype: npt.DTypeLike) -> np.dtype[np.generic]:
    try:
        precision = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise InputError("network: dtype", "float32 or float64", repr(dtype)) from error
    if precision not in (np.float32, np.float64):
        raise InputError("network: dtype", "float32 or float64", precision)
    return precision


class LoweredNetwork:
    """A network with all buffers for one batch size; `gradients`, in training, are laid out as the parameters."""

    def __init__(
        self,
        network: Network,
        batch: int,
        training: bool,
        wants_dx: bool,
        noise: Noise,
        block_bytes: int | None,
        fused: bool,
    ) -> None:
        parameters = network.parameters
        dtype = parameters.vector.dtype
        self.network = network
        self.noise = noise
        self.workspace = Workspace(dtype, block_bytes)
        self.x = self.workspace.array((*network.input_shape, batch))
        self.gradients = ParameterVector.zeros(parameters.parameters if training else (), dtype)
        site = Site(
            "", network.input_shape, batch, training, wants_dx, parameters, self.gradients, self.workspace, noise
        )
        self.layers = (fuse(network.model) if fused else network.model).lower(site)

    def forward(self, images: npt.NDArray[np.generic]) -> Array:
        """Return the outputs (features, N) for images (N, C, H, W); bytes from 0 to 255 become numbers from 0 to 1.

        This is the one place where the batch goes from the first axis to the innermost.
        """
        check_shape("network: images", (self.x.shape[-1], *self.x.shape[:-1]), images.shape)
        scale = 1 / 255 if images.dtype == np.uint8 else 1.0
        np.multiply(np.moveaxis(images, 0, -1), scale, out=self.x, dtype=self.x.dtype, casting="same_kind")
        return self.layers.forward(self.x)

    def backward(self, dy: Array) -> Array | None:
        """Write all gradients for the gradient of the outputs (features, N), which may be overwritten."""
        return self.layers.backward(dy)
