"""Networks and checkpoints: safetensors files with a header in JSON, whose checksum most mutations make right again."""

import dataclasses
import hashlib
import json
import math
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np

import lowered_cnn as cnn
from fuzzing.mutations import tree_changed, words_of
from fuzzing.target import Mutation, Target
from lowered_cnn import Layer, Network, Recipe, Training, load, save
from lowered_cnn.arrays import Shape
from lowered_cnn.data import Dataset
from lowered_cnn.descriptions import restore
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.training.checkpoint import read_state, write_state
from lowered_cnn.training.state import State

KINDS = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
"""The names that safetensors and NumPy have for types of numbers."""

SMALL = 1000
"""Numbers of a parameter that is made to fit, at most."""

LAYERS: Mapping[Shape, Sequence[Layer]] = {
    (3,): (cnn.Dense(2), cnn.LayerNorm(), cnn.Softmax()),
    (2, 4): (cnn.Conv1D(2, 2), cnn.ConvTranspose1D(2, 2, 2, output_padding=1), cnn.MaxPool(2, 1)),
    (1, 2, 2, 2): (cnn.Conv3D(2, (1, 2, 2)), cnn.ConvTranspose3D(1, 1, 2)),
    (2, 3, 3): (
        cnn.Conv2D(4, (2, 1), (1, 2), ((1, 0), (0, 1)), groups=2), cnn.Conv2D(2, 2, padding="same", bias=False),
        cnn.ConvTranspose2D(2, 2, 2, 1, groups=2), cnn.MaxPool(2, ceil_mode=True), cnn.AvgPool(2, 1, "same"),
        cnn.BatchNorm(), cnn.LayerNorm(), cnn.Residual(cnn.Conv2D(2, 1)), cnn.Concatenate(cnn.ReLU(), cnn.Tanh()),
        cnn.Residual(cnn.Conv2D(1, 1), cnn.Conv2D(1, 1)), cnn.Pad(1), cnn.Pad(((0, 1), (2, 0)), 0.5), cnn.Dropout(0.25),
        cnn.ELU(), cnn.GELU(True), cnn.LeakyReLU(), cnn.SiLU(), cnn.Sigmoid(), cnn.GlobalAvgPool(), cnn.GlobalMaxPool(),
        cnn.Sequential(cnn.Conv2D(2, 2), cnn.BatchNorm(), cnn.ReLU(), cnn.MaxPool(2), cnn.Flatten(), cnn.Dense(2)),
    ),
}  # fmt: skip
"""Layers for inputs of each shape."""

Tensors: TypeAlias = dict[str, tuple[str, tuple[int, ...], bytes]]
"""The type, shape and bytes of each tensor."""


def unpacked(content: bytes) -> tuple[dict[str, Any], Tensors]:
    """Return the header that is ours, and the tensors; raises an error of any kind for a damaged file."""
    length = int.from_bytes(content[:8], "little")
    outer, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    header: dict[str, Any] = json.loads(outer.pop("__metadata__")["lowered_cnn"])
    tensors = {
        name: (KINDS[t["dtype"]], tuple(t["shape"]), numbers[slice(*t["data_offsets"])]) for name, t in outer.items()
    }
    return header, tensors


def packed(header: Mapping[str, Any], tensors: Tensors) -> bytes:
    """Return the file, with the checksum that belongs to it."""
    whole = {**header, "sha256": checksum(header, tensors)}
    outer: dict[str, Any] = {"__metadata__": {"lowered_cnn": json.dumps(whole)}}
    numbers = b""
    names = {numpy: theirs for theirs, numpy in KINDS.items()}
    for name, (kind, shape, part) in tensors.items():
        outer[name] = {"dtype": names[kind], "shape": shape, "data_offsets": [len(numbers), len(numbers) + len(part)]}
        numbers += part
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + numbers


def checksum(header: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the SHA-256 of all but itself."""
    rest = {name: value for name, value in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        kind, shape, numbers = tensors[name]
        digest.update(json.dumps([name, kind, shape]).encode() + numbers)
    return digest.hexdigest()


class Checked(Target):
    """A reader of such files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sound = list(self.made())
        trees = [unpacked(content)[0] for content in self.sound]
        self.words = sorted(set[str]().union(cnn.__all__, *map(words_of, trees)))

    @abstractmethod
    def made(self) -> Iterator[bytes]:
        """Yield sound files."""

    @abstractmethod
    def fitting(self, header: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """Return tensors that fit a changed header; raises an error of any kind if there are none."""

    def seeds(self) -> list[bytes]:
        """Return the sound files."""
        return self.sound

    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Change bytes, the numbers, what is said of them, or the header, which in part of the cases they then fit."""
        action = draw.random()
        try:
            header, tensors = unpacked(content)
        except Exception:  # damaged beyond repair
            return plain(content)
        if action < 0.15:
            return plain(content)
        if action < 0.3 and tensors:
            name = draw.choice(sorted(tensors))
            kind, shape, numbers = tensors[name]
            if draw.random() < 0.5:
                tensors[name] = kind, shape, plain(numbers)[: len(numbers)].ljust(len(numbers), b"\0")
            else:
                tensors[draw.choice([name, *self.words])] = draw.choice(list(KINDS.values())), (len(numbers),), numbers
        else:
            header = tree_changed(header, self.words, draw)
        if action > 0.75:
            with suppress(Exception):  # a header that says nothing
                tensors = self.fitting(header, tensors)
        try:
            return packed(header, tensors)
        except Exception:  # no header any more, say
            return plain(content)


def filled(kind: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], bytes]:
    """Return a tensor of ones."""
    if math.prod(shape) > SMALL:
        raise ValueError("too large")
    return kind, shape, np.ones(shape, kind).tobytes()


class NetworkFile(Checked):
    """Networks: the tensors are those of the file, and what is saved again is the same network."""

    def made(self) -> Iterator[bytes]:
        """Yield a small network with each layer."""
        for number, (input_shape, layer) in enumerate((shape, layer) for shape in LAYERS for layer in LAYERS[shape]):
            network = Network(layer, input_shape, dtype=("float32", "float64")[number % 2])
            network.input_range = (0.0, 1.0) if number % 3 else None
            save(network, self.path)
            yield self.path.read_bytes()

    def fitting(self, header: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """Return ones for each parameter."""
        model: Any = restore(header["model"])
        return {p.name: filled(header["dtype"], p.shape) for p in model.parameters(tuple(header["input_shape"]))}

    def read(self, content: bytes) -> object:
        """Read from a file."""
        self.path.write_bytes(content)
        return load(self.path)

    def verify(self, content: bytes, value: Any) -> None:
        """Compare with the file; save and load; and predict, for one file in 16 that asks little."""
        header, tensors = unpacked(content)
        check_header(header, tensors)
        assert list(value.input_shape) == header["input_shape"], "another input shape"
        parameters = {name: (v.dtype.name, v.shape, v.tobytes()) for name, v in value.parameters.items()}
        assert parameters == tensors, "other numbers"
        save(value, self.path)
        again = load(self.path)
        assert (again.model, again.input_shape) == (value.model, value.input_shape), "another network"
        assert again.input_range == value.input_range, "another range"
        assert again.parameters.vector.tobytes() == value.parameters.vector.tobytes(), "other numbers when saved again"
        sizes = [math.prod(shape) for _, _, shape in value.model.steps(value.input_shape)]
        if zlib.crc32(content) % 16 == 0 and sum(sizes) < 10_000:
            low = 0.0 if value.input_range is None else value.input_range[0]
            with np.errstate(all="ignore"):
                outputs = value.predict(np.full((2, *value.input_shape), low))
            assert outputs.shape == (2, *value.output_shape), "other outputs"


class Checkpoint(Checked):
    """Checkpoints: numbers of the right kind, and what is written again is the same state."""

    def made(self) -> Iterator[bytes]:
        """Yield trainings after two steps of a network with a few parameters."""
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), np.uint8)
        data = Dataset(images, np.arange(40) % 2)
        layers = (cnn.Conv2D(2, 3), cnn.BatchNorm(), cnn.ReLU(), cnn.Flatten(), cnn.Dense(2))
        for recipe in (
            Recipe(epochs=2, batch_size=20),
            Recipe(epochs=2, batch_size=20, optimizer=cnn.Adam(), average=0.9, patience=2),
            Recipe(epochs=9, batch_size=40, optimizer=cnn.SGD(), augmentation=cnn.Augmentation(shift=1)),
        ):
            dev = data if recipe.patience else None
            training = Training(Network(layers, (1, 4, 4)), data, recipe, dev=dev)
            for _ in range(3):
                next(training)
            training.save(self.path)
            yield self.path.read_bytes()

    def fitting(self, header: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """Return ones for each vector."""
        model: Any = restore(header["model"])
        recipe: Any = restore(header["recipe"])
        vector = ParameterVector.zeros(model.parameters(tuple(header["input_shape"])), header["dtype"])
        names = [name for name in tensors if not name.startswith("optimizer.")]
        whole, learned = (filled(header["dtype"], part.shape) for part in (vector.vector, vector.learned))
        return dict.fromkeys(names, whole) | {f"optimizer.{name}": learned for name in recipe.optimizer.buffers}

    def read(self, content: bytes) -> object:
        """Read from a file."""
        self.path.write_bytes(content)
        return read_state(self.path)

    def verify(self, content: bytes, value: Any) -> None:
        """Compare with the file; check the kind of each number; write and read."""
        header, tensors = unpacked(content)
        check_header(header, tensors)
        assert vectors_of(value) == tensors, "other numbers"
        check_kinds(value)
        write_state(value, self.path)
        again = read_state(self.path)
        for field in dataclasses.fields(State):
            one, other = (getattr(state, field.name) for state in (value, again))
            plain = field.name not in ("parameters", "buffers", "average", "best")
            assert not plain or repr(one) == repr(other), f"another {field.name} when written again"
        assert vectors_of(again) == tensors, "other numbers when written again"


def check_header(header: Mapping[str, Any], tensors: Tensors) -> None:
    """Raise AssertionError unless the checksum is right; the first files had none."""
    if "format" in header or "sha256" in header:
        assert header["sha256"] == checksum(header, tensors), "another checksum"


def vectors_of(state: State) -> Tensors:
    """Return the vectors of a state as they are in its file."""
    named = {"parameters": state.parameters, "average": state.average, "best": state.best}
    vectors = {name: vector for name, vector in named.items() if vector is not None}
    vectors |= {f"optimizer.{name}": buffer for name, buffer in state.buffers.items()}
    return {name: (vector.dtype.name, vector.shape, vector.tobytes()) for name, vector in vectors.items()}


def check_kinds(state: State) -> None:
    """Raise AssertionError unless the numbers of a state and its records are of their types, and possible."""
    subject = state.subject
    assert type(state.step) is int, "step"
    assert state.step >= 0, "step"
    assert is_rate(state.learning_rate) or state.learning_rate is None, "learning_rate"
    assert is_rate(state.seconds), "seconds"
    assert type(state.epoch_loss) in (int, float), "epoch_loss"
    assert isinstance(state.machine, str), "machine"
    assert (type(subject.data), type(subject.dev)) in ((str, str), (str, type(None))), "data"
    assert subject.dtype in ("float32", "float64"), "dtype"
    assert all(type(length) is int and length > 0 for length in subject.input_shape), "input_shape"
    for record in state.history:
        assert (type(record.step), type(record.epoch), type(record.ends_epoch)) == (int, int, bool), "history"
        for name in ("loss", "images_per_second", "learning_rate"):
            assert type(getattr(record, name)) in (int, float), name
        for name in ("train_accuracy", "epoch_loss", "dev_loss", "dev_accuracy"):
            assert type(getattr(record, name)) in (int, float, type(None)), name
        assert all(type(figure) in (int, float) for figure in record.dev_metrics.values()), "dev_metrics"


def is_rate(value: object) -> bool:
    """Return whether a value is a finite number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
