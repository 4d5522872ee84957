"""Network: layers with their parameters in one flat vector, and the public entry point for images."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import (
    Array,
    Images,
    InputError,
    Shape,
    check_images,
    check_shape,
    check_size,
    whole_number,
    with_python_numbers,
)
from lowered_cnn.fusion import fuse
from lowered_cnn.layers import (
    Conv1D,
    Conv2D,
    Conv3D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Graph,
    Layer,
    Sequential,
    Sigmoid,
    Site,
    Softmax,
    Standardize,
)
from lowered_cnn.layers.branches import Branches
from lowered_cnn.layers.container import Tap, check_nesting, stages_of
from lowered_cnn.layers.layer import Noise
from lowered_cnn.layers.standardize import moments
from lowered_cnn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy, check_is_loss, loss_and_gradient
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.prediction import Predictor
from lowered_cnn.workspace import BLOCK_BYTES, Workspace

OTHER_SCALE = 8
"""Images that leave the training images' range by this many times its width are on another scale."""

APPLIED: dict[type[Loss], type[Layer]] = {SoftmaxCrossEntropy: Softmax, BinaryCrossEntropy: Sigmoid}
"""The activations that losses apply themselves."""


@dataclass(frozen=True)
class Gradient:
    """The result of one batch: J, the outputs (N, ...), and dJ of each parameter, by name and as a flat vector.

    Instead of a gradient, a statistic has the amount that a step subtracts from it.
    """

    loss: float
    outputs: Array
    parameters: ParameterVector


class Network:
    """A model (a Sequential, a Graph, a layer, or a list of layers) with its parameters, for inputs of one shape.

    `parameters` is the flat vector with named views (`network.parameters["conv1.weight"]`), float32 unless `dtype` is
    float64, and initialized from `seed`. `input_range` is the smallest and the largest number in the images it was
    trained on, where bytes count as 0 to 1; it is None before training. Raises InputError, with the layer's name, if
    shapes do not fit.
    """

    def __init__(
        self,
        model: Layer | Sequence[Layer],
        input_shape: Sequence[int],
        *,
        seed: int = 0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.model: Sequential | Graph = model if isinstance(model, Sequential | Graph) else Sequential(model)
        check_nesting(self.model)
        self.model = with_python_numbers(self.model)
        self.input_shape = as_input_shape(input_shape)
        self.output_shape = self.model.output_shape(self.input_shape, "")
        owned = self.model.parameters(self.input_shape)
        for parameter in owned:
            check_size(f"network: {parameter.name}", parameter.shape)
        for name, count in Counter(parameter.name for parameter in owned).items():
            if count > 1:
                raise InputError("network: parameters", "a different name for each", f"{name} {count} times")
        self._parameters = ParameterVector.zeros(owned, _precision(dtype))
        self.parameters.initialize(whole_number("network: seed", seed, 0))
        self.input_range: tuple[float, float] | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Start without lowered forms: they are made when first needed, and a copy makes its own."""
        self._predictor = Predictor(partial(multiplications, self.model, self.input_shape))
        self._for_gradients: dict[int, LoweredNetwork] = {}
        self._passes = 0
        self._computing = Lock()  # the lowered forms have one set of buffers for all callers

    def __getstate__(self) -> dict[str, object]:
        made = ("_predictor", "_for_gradients", "_passes", "_computing")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._prepare()

    @property
    def parameters(self) -> ParameterVector:
        """The parameters; assigning others of the same names and shapes copies their values."""
        return self._parameters

    @parameters.setter
    def parameters(self, others: ParameterVector) -> None:
        if not isinstance(others, ParameterVector) or others.parameters != self._parameters.parameters:
            raise InputError("network: parameters", "those of the same model", type(others).__name__)
        self._parameters.vector = others.vector

    def keep_parameters_in(self, vector: Array) -> None:
        """Keep the parameters that are in this vector, which may be shared; forms lowered before keep the old ones."""
        self._parameters = ParameterVector(self._parameters.parameters, vector)
        self._prepare()

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
        frozen: frozenset[str] = frozenset(),
    ) -> "LoweredNetwork":
        """Allocate everything for `batch` examples, for `training` or for inference.

        `wants_dx` asks for the gradient of the input as well; at inference, it brings the parameters' gradients too.
        `seed` is the seed of the noise in training (Dropout). Without `fused`, and with `block_bytes` None, each
        convolution is one im2col and one matrix product. Gradients are written to the flat vector `gradients` if given;
        those of `frozen` parameters, given by name, are 0.
        """
        whole_number("network: batch", batch, 1)
        if gradients is None:
            gradients = np.zeros_like(self.parameters.vector[: None if training or wants_dx else 0])
        return LoweredNetwork(self, batch, training, wants_dx, Noise(seed), block_bytes, fused, gradients, frozen)

    def predict(self, images: Images, *, workers: int | None = None) -> Array:
        """Return the outputs (N, *output shape) for images (N, *input shape), uint8 or float.

        Grey images may come as (N, H, W). If they are work enough, up to `workers` threads share them (by
        default one per usable core), with the same bits for any number. Raises InputError for images of another shape,
        or on another scale than the training images.
        """
        if workers is not None:
            whole_number("predict: workers", workers, 1)
        images = as_batch(images, self.input_shape)
        self.check_scale(images)
        outputs = np.empty((len(images), *self.output_shape), self.parameters.vector.dtype)
        self._predictor.predict(lambda count: self.lower(count, training=False).forward, images, outputs, workers)
        return outputs

    def gradient(self, images: Images, targets: npt.ArrayLike, loss: Loss = SoftmaxCrossEntropy()) -> Gradient:
        """Run a batch forward and backward, as in training, and return J, the outputs and the parameters' gradients.

        With an optimizer, this makes a training loop of your own: `update = SGD(0.1).over(network.parameters)` once,
        then `update.step(network.gradient(images, labels).parameters)` for each batch. The batch is one shard:
        BatchNorm normalizes over all of it. Dropout draws a new mask each time. Buffers are kept for two batch sizes.
        """
        check_loss(self, loss)
        images = as_batch(images, self.input_shape)
        if not len(images):
            raise InputError("gradient: images", "at least one", 0)
        self.learn_scale(images)
        with self._computing:
            return self._gradient(images, np.asarray(targets), loss)

    def _gradient(self, images: Images, targets: npt.NDArray[np.generic], loss: Loss) -> Gradient:
        count = len(images)
        if count not in self._for_gradients:
            self._for_gradients = {**dict(list(self._for_gradients.items())[-1:]), count: self.lower(count)}
        lowered = self._for_gradients[count]
        self._passes += 1
        z = lowered.forward(images, position=(self._passes,))
        value, dz = loss_and_gradient(loss, z, targets, loss.total(targets))
        outputs = z.copy()
        lowered.backward(dz)
        gradients = ParameterVector(self.parameters.parameters, lowered.gradients.vector.copy())
        gradients.statistics /= count
        return Gradient(value, outputs, gradients)

    def split(self, at: str) -> tuple["Network", "Network"]:
        """Return two networks, with copies of the parameters: what comes before the layer called `at`, and the rest.

        The second takes the outputs of the first, and `parameters.copy_from` copies back what it has learned. In a
        graph, the rest is all that depends on `at`. Raises InputError if it needs more than one tensor.
        """
        before, rest = self.model.split(at)
        trunk = Network(before, self.input_shape, dtype=self.parameters.vector.dtype)
        head = Network(rest, trunk.output_shape, dtype=self.parameters.vector.dtype)
        trunk.input_range = self.input_range
        for part in (trunk, head):
            part.parameters.copy_from(self.parameters)
        return trunk, head

    def with_head(self, head: int | Layer | Sequence[Layer], at: str | None = None, *, seed: int = 0) -> "Network":
        """Return a network with another head: `head` in place of the layer called `at` and all that follows it.

        By default, `at` is the last layer with parameters. A number of outputs stands for a Dense layer or, if maps
        come in, for a 1 x 1 convolution and the mean over all positions. The head takes the name of what it replaces,
        and is initialized from `seed`; all other parameters are copied. Raises InputError as `split` does, and if the
        head does not fit.
        """
        at = self._last_with_parameters() if at is None else at
        trunk, _ = self.split(at)
        if not isinstance(head, Layer | Sequence):
            head = _head(whole_number("with_head: outputs", head, 1), trunk.output_shape)
        model = trunk.model.followed_by(at, head if isinstance(head, Layer) else Sequential(head))
        network = Network(model, self.input_shape, seed=seed, dtype=self.parameters.vector.dtype)
        network.parameters.copy_from(trunk.parameters)
        network.input_range = self.input_range
        return network

    def _last_with_parameters(self) -> str:
        owners = [name for name in self.model.names for own in self.parameters if own.startswith(f"{name}.")]
        if not owners:
            raise InputError("with_head: at", "a layer's name, as no layer has parameters", None)
        return owners[-1]

    def for_inputs(self, input_shape: Sequence[int]) -> "Network":
        """Return the same network, with copies of the parameters, for inputs of another shape.

        Raises InputError, which names the first parameter, if that would change a parameter's shape.
        """
        shape = as_input_shape(input_shape)
        self.model.output_shape(shape, "")
        for parameter in self.model.parameters(shape):
            check_shape(f"for_inputs: {parameter.name}", self.parameters[parameter.name].shape, parameter.shape)
        network = Network(self.model, shape, dtype=self.parameters.vector.dtype)
        network.parameters.copy_from(self.parameters)
        network.input_range = self.input_range
        return network

    def learn_scale(self, images: Images) -> None:
        """Widen the range of the training images to these; raises InputError for images on another scale."""
        self.check_scale(images)
        ranges = [found for found in (self.input_range, image_range(images.dtype, [images])) if found is not None]
        if ranges:
            self.input_range = min(low for low, _ in ranges), max(high for _, high in ranges)

    def standardize(self, parts: Callable[[], Iterable[Images]]) -> None:
        """Measure what each Standardize that takes an input subtracts and divides by.

        `parts` returns the images (N, *input shape) in parts, anew each time. What was measured before stays.
        """
        for name, source in self._standardized():
            mean, deviation = (self.parameters[f"{name}.{own}"] for own in ("mean", "deviation"))
            if not mean.any() and (deviation == 1).all():
                mean[...], deviation[...] = moments(source(as_batch(images, self.input_shape)) for images in parts())

    def _standardized(self) -> Iterator[tuple[str, Callable[[Images], Images]]]:
        """Yield the name of each Standardize that takes an input, and what finds that input in a batch."""
        model = self.model
        if isinstance(model, Graph):
            for node in model.nodes:
                if isinstance(node.layer, Standardize) and node.shares is None and node.inputs[0] in model.sources:
                    yield node.name, partial(model.source, node.inputs[0])
        elif model.layers and isinstance(model.layers[0], Standardize):
            yield model.names[0], lambda images: images

    def check_scale(self, images: Images) -> None:
        """Raise InputError for images on another scale than the training images: floats from 0 to 255, say."""
        if self.input_range is None or not images.size or len(self.input_shape) == 1:  # features have no pixel scale
            return
        low, high = self.input_range
        wanted = f"numbers on the scale of the training images, {low:g} to {high:g}"
        if images.dtype == np.uint8:
            if low < 0 or high > 1:
                raise InputError("network: images", wanted, "bytes, which count as 0 to 1")
            return
        found, margin = image_range(images.dtype, [images]), OTHER_SCALE * (high - low)
        if found and margin and (found[0] < low - margin or found[1] > high + margin):
            raise InputError("network: images", wanted, f"{found[0]:g} to {found[1]:g}")


def as_input_shape(input_shape: Sequence[int]) -> Shape:
    """Return the shape of an example as a tuple; raises InputError unless it has at least one length, all positive."""
    lengths = tuple(input_shape) if np.iterable(input_shape) else ()
    if not lengths:
        raise InputError("network: input shape", "at least one length", repr(input_shape))
    shape = tuple(whole_number("network: input shape", length, 1) for length in lengths)
    check_size("network: input shape", shape)
    return shape


def image_range(dtype: np.dtype[np.uint8 | np.floating], parts: Iterable[Images]) -> tuple[float, float] | None:
    """Return the smallest and the largest finite number in images, or None if there is none.

    The images come in parts. Bytes count as 0 to 1, and are not looked at.
    """
    if dtype == np.uint8:
        return 0.0, 1.0
    least, most = np.inf, -np.inf
    for images in parts:
        low, high = float(images.min()), float(images.max())
        if not np.isfinite([low, high]).all():
            finite = images[np.isfinite(images)]
            low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
        least, most = min(least, low), max(most, high)
    return (least, most) if least <= most else None


def multiplications(layer: Layer, input_shape: Shape) -> int:
    """Return about how many multiplications an example takes: one for each parameter and position of an output."""
    match layer:
        case Sequential():
            return sum(multiplications(inner, shape) for _, inner, shape in layer.steps(input_shape))
        case Branches():
            return multiplications(layer.graph, input_shape)
        case Graph():
            shapes = layer.shapes(input_shape)
            layers = [(node.layer, shapes[node.inputs[0]]) for node in layer.nodes if isinstance(node.layer, Layer)]
            return sum(multiplications(inner, shape) for inner, shape in layers)
    numbers = sum(math.prod(parameter.shape) for parameter in layer.parameters(input_shape))
    return numbers * math.prod(layer.output_shape(input_shape, "")[1:])


def _head(outputs: int, input_shape: Shape) -> Layer:
    """Return the usual last layers for features, or for maps of 1 to 3 axes."""
    if len(input_shape) == 1:
        return Dense(outputs)
    kinds = (Conv1D, Conv2D, Conv3D)[len(input_shape) - 2 : len(input_shape) - 1]
    if not kinds:
        raise InputError("with_head: input", "features, or maps of 1 to 3 axes", input_shape)
    return Sequential(kinds[0](outputs, 1), GlobalAvgPool())


def check_network(where: str, network: object) -> None:
    """Raise InputError unless something is a Network."""
    if not isinstance(network, Network):
        raise InputError(where, "a Network, such as Network(model, input_shape)", type(network).__name__)


def _last_layer(model: Sequential | Graph) -> Layer | None:
    """Return the last layer that changes numbers at inference; None if there is none."""
    for layer in _from_the_end(model):
        found = _last_layer(layer) if isinstance(layer, Sequential | Graph) else layer
        if found is not None and not isinstance(found, Flatten | Dropout):
            return found
    return None


def _from_the_end(model: Sequential | Graph) -> Iterator[Layer]:
    """Yield the layers from the last to the first; in a graph, as far back as it is a chain."""
    if isinstance(model, Sequential):
        yield from reversed(model.layers)
    else:
        nodes, name = {node.name: node for node in model.nodes}, model.outputs[0]
        while name in nodes and isinstance(layer := nodes[name].layer, Layer):
            yield layer
            name = nodes[name].inputs[0]


def applied_twice(network: Network, loss: Loss) -> type[Layer] | None:
    """Return the activation, if there is one, that a network ends in and the loss applies again."""
    last = _last_layer(network.model)
    return next((layer for kind, layer in APPLIED.items() if isinstance(loss, kind) and isinstance(last, layer)), None)


def check_loss(network: Network, loss: Loss) -> None:
    """Raise InputError if a network ends in an activation that the loss applies itself: it would be applied twice."""
    check_is_loss(loss)
    twice = applied_twice(network, loss)
    if twice is not None:
        name = twice.__name__
        wanted = f"a network without {name}() at its end, as {type(loss).__name__}() applies it"
        gives = " (softmax(network.predict(images)) gives the probabilities)" if twice is Softmax else ""
        raise InputError("loss", wanted + gives, f"{name}()")


def as_batch(images: Images, input_shape: Shape, where: str = "network: images") -> Images:
    """Return images as (N, *input shape); grey images may come as (N, H, W). Raises InputError for other shapes."""
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
    """A network with all buffers for one batch size; `gradients`, if there are any, are laid out like the parameters.

    Here the public batch-first layout (N, ...) becomes the internal batch-last layout (..., N), and back.
    """

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
        frozen: frozenset[str],
    ) -> None:
        parameters, wants_gradients = network.parameters, training or wants_dx
        self.input_shape = network.input_shape
        self.noise = noise
        self.workspace = Workspace(parameters.vector.dtype, block_bytes, shares=not wants_gradients)
        self.x = self.workspace.array((*network.input_shape, batch))
        self._images = np.moveaxis(self.x, -1, 0)
        self.dy = self.workspace.array((*network.output_shape, batch) if wants_gradients else (0,))
        self.gradients = ParameterVector(parameters.parameters if wants_gradients else (), gradients)
        self._frozen = [self.gradients[name] for name in frozen if wants_gradients]
        self._passes = 0
        site = Site(
            "", "", network.input_shape, batch, training, wants_gradients, wants_dx,
            parameters, self.gradients, self.workspace, noise, frozen,
        )  # fmt: skip
        self.layers = (fuse(network.model, fold=not wants_gradients) if fused else network.model).lower(site)

    def forward(self, images: Images, *, position: tuple[int, ...] | None = None) -> Array:
        """Return the outputs (N, *output shape) for images (N, C, *size), until the next call.

        Bytes from 0 to 255 are scaled to 0 to 1. The noise of Dropout depends on the seed and `position`; without a
        position, it is new each time.
        """
        self._passes += 1
        self.noise.position = (self._passes,) if position is None else position
        images = as_batch(images, self.input_shape)
        check_shape("network: images", (self.x.shape[-1], *self.x.shape[:-1]), images.shape)
        if images.dtype == np.uint8:
            np.multiply(images, 1 / 255, out=self._images, dtype=self.x.dtype, casting="same_kind")
        else:
            np.copyto(self._images, images)
        y = self.layers.forward(self.x)
        return y.transpose(-1, *range(y.ndim - 1))

    def backward(self, dy: Array) -> Array | None:
        """Write the parameters' gradients for dy (N, *output shape), the outputs'; return the images', if wanted.

        Raises InputError if the network was lowered without gradients, or if dy has another shape.
        """
        if not self.dy.size:
            raise InputError("network: backward", "a network lowered for training, or with wants_dx", "neither")
        check_shape("network: dy", (self.dy.shape[-1], *self.dy.shape[:-1]), dy.shape)
        np.copyto(self.dy, np.moveaxis(dy, 0, -1), casting="same_kind")
        dx = self.layers.backward(self.dy)
        for gradient in self._frozen:  # a layer may compute them, as other layers before it learn
            gradient.fill(0)
        return None if dx is None else np.moveaxis(dx, -1, 0)

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Attach a tap to every layer inside the `with` block; fused layers count as one."""
        stages = list(stages_of(self.layers))
        for stage in stages:
            stage.taps.append(tap)
        try:
            yield
        finally:
            for stage in stages:
                stage.taps.remove(tap)
