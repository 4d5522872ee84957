"""Network: layers with their parameters in one flat vector, and the public door where images come in."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, InputError, Shape, check_images, check_shape, whole_number
from lowered_cnn.fusion import fuse
from lowered_cnn.layers import Sequential, Site
from lowered_cnn.layers.layer import Noise
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.prediction import Predictor
from lowered_cnn.workspace import BLOCK_BYTES, Workspace


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
        self._predictor = self._new_predictor()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_predictor"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._predictor = self._new_predictor()

    def lower(
        self,
        batch: int,
        *,
        training: bool = True,
        wants_dx: bool = False,
        seed: int = 0,
        block_bytes: int | None = BLOCK_BYTES,
        fused: bool = True,
        gradients: Array | None = None,
    ) -> "LoweredNetwork":
        """Allocate everything for `batch` examples, for `training` or for inference.

        `wants_dx` asks for the gradient of the input too, `seed` is that of the noise in training (Dropout), and
        `block_bytes` None makes each convolution one im2col and one matrix product. The gradients are written to the
        flat vector `gradients`, if one is given.
        """
        whole_number("network: batch", batch, 1)
        if gradients is None:
            gradients = np.zeros_like(self.parameters.vector[: None if training else 0])
        return LoweredNetwork(self, batch, training, wants_dx, Noise(seed), block_bytes, fused, gradients)

    def predict(self, images: Images, *, workers: int | None = None) -> Array:
        """Return the outputs (N, *output shape) for images (N, *input shape), uint8 or float.

        Grey ones may come as (N, H, W). Many images are run on `workers` threads (as many as there are usable cores),
        and to the same bits.
        """
        if workers is not None:
            whole_number("predict: workers", workers, 1)
        images = as_batch(images, self.input_shape)
        outputs = np.empty((len(images), *self.output_shape), self.parameters.vector.dtype)
        self._predictor.predict(images, outputs, workers)
        return outputs

    def _new_predictor(self) -> Predictor:
        return Predictor(lambda batch: self.lower(batch, training=False).forward)


def as_batch(images: Images, input_shape: Shape, where: str = "network: images") -> Images:
    """Return images as (N, *input shape); grey ones may come as (N, H, W). Raises InputError for other shapes."""
    check_images(where, images)
    if images.ndim == len(input_shape) and input_shape[0] == 1:
        images = images[:, None]
    check_shape(where, input_shape, images.shape[1:])
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
        gradients: Array,
    ) -> None:
        parameters = network.parameters
        self.network = network
        self.noise = noise
        self.workspace = Workspace(parameters.vector.dtype, block_bytes)
        self.x = self.workspace.array((*network.input_shape, batch))
        self.gradients = ParameterVector(parameters.parameters if training else (), gradients)
        site = Site(
            "", network.input_shape, batch, training, wants_dx, parameters, self.gradients, self.workspace, noise
        )
        self.layers = (fuse(network.model, training=training) if fused else network.model).lower(site)

    def forward(self, images: Images) -> Array:
        """Return the outputs (features, N) for images (N, C, *size); bytes from 0 to 255 become numbers from 0 to 1.

        This is the one place where the batch goes from the first axis to the innermost.
        """
        images = as_batch(images, self.network.input_shape)
        check_shape("network: images", (self.x.shape[-1], *self.x.shape[:-1]), images.shape)
        scale = 1 / 255 if images.dtype == np.uint8 else 1.0
        np.multiply(np.moveaxis(images, 0, -1), scale, out=self.x, dtype=self.x.dtype, casting="same_kind")
        return self.layers.forward(self.x)

    def backward(self, dy: Array) -> Array | None:
        """Write all gradients for the gradient of the outputs (features, N), which may be overwritten."""
        return self.layers.backward(dy)
