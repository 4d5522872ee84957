"""Data sets that need not be in memory: views, memory maps, examples made on demand, and their fingerprint."""

import hashlib
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx_files import idx_bytes
from running import noisy_network

from lowered_cnn import Constant, Dataset, Examples, InputError, Network, Recipe, evaluate, train
from lowered_cnn.arrays import Images, Shape
from lowered_cnn.cli import main
from lowered_cnn.data import digest, load, read_idx
from lowered_cnn.data.dataset import Indices
from lowered_cnn.training import evaluation

MIB = 2**20
CLASS_NUMBERS = "labels: expected class numbers from 0, below 1,048,576"
RECIPE = Recipe(epochs=1, batch_size=40, schedule=Constant())


def noise(count: int = 200, shape: Shape = (1, 28, 28), dtype: type[np.generic] = np.uint8) -> Dataset:
    images: Any = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(dtype)
    return Dataset(images, np.arange(count) % 10, tuple("abcdefghij"))


class OnDemand:
    """Examples that are nowhere until they are asked for; how many images at most were asked for at once."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self.targets, self.classes, self.weights = data.targets, data.classes, data.weights
        self.image_shape, self.dtype = data.image_shape, data.dtype
        self.most = 0

    def __len__(self) -> int:
        return len(self._data)

    def gather(self, indices: Indices, out: Images) -> None:
        self.most = max(self.most, len(indices))
        out[...] = self._data.images[indices]


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Assert that no more than `limit` bytes are allocated at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# --- views -----------------------------------------------------------------------------------------------------------


LAYOUTS: list[Callable[[Images], Images]] = [
    lambda images: images,
    np.asfortranarray,
    lambda images: np.repeat(images, 2, axis=0)[::2],
    lambda images: images[..., ::-1],
]


@given(st.data(), st.sampled_from(LAYOUTS), st.integers(0, 3))
def test_views_of_views_gather_what_copies_of_copies_hold(
    data: st.DataObject, layout: Callable[[Images], Images], depth: int
) -> None:
    images = np.random.default_rng(0).random((9, 2, 3))
    view, copy = Dataset(layout(images), np.arange(9)), layout(images)
    for _ in range(depth):
        chosen = np.array(data.draw(st.lists(st.integers(-len(view), len(view) - 1), min_size=1, max_size=9)))
        view, copy = view.take(chosen), copy[chosen]
    indices = np.array(data.draw(st.lists(st.integers(-len(view), len(view) - 1), max_size=5)), int)
    out = np.empty((len(indices), 2, 3))
    view.gather(indices, out)
    np.testing.assert_array_equal(out, copy[indices])
    np.testing.assert_array_equal(view.images, copy)
    view.gather(indices, out)
    np.testing.assert_array_equal(out, copy[indices])


def test_splits_of_splits_share_the_images() -> None:
    data = Dataset(np.zeros((1000, 10_000), np.uint8), np.zeros(1000, int))
    with at_most(MIB):
        part = data.split(100, seed=0)[0].split(100, seed=1)[0].take(np.arange(700))
    assert len(part) == 700


def test_changes_to_the_images_of_a_view_count() -> None:
    view = noise().take(np.array([3, 5]))
    view.images[:] = 7
    view.gather(np.array([1]), out := np.zeros((1, 1, 28, 28), np.uint8))
    assert out.min() == out.max() == 7
    assert noise().images[5].max() > 7, "the images of the whole are left alone"


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_a_batch_is_gathered_without_a_copy_of_the_rest(layout: Callable[[Images], Images]) -> None:
    data = Dataset(layout(np.zeros((1000, 10_000), np.uint8)), np.zeros(1000, int))
    out = np.empty((10, 10_000), np.uint8)
    with at_most(MIB):
        data.gather(np.arange(0, 1000, 100), out)


@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        (np.array([200]), "integers below 200, got "),
        (np.array([-201]), "integers below 200, got "),
        (np.array([[0]]), "shape (n), got (1, 1)"),
        (np.array([0.0]), "integers below 200, got "),
    ],
)
def test_positions_that_are_none_are_refused(indices: npt.NDArray[Any], problem: str) -> None:
    for call in (lambda: noise().take(indices), lambda: noise().gather(indices, np.empty((1, 1, 28, 28), np.uint8))):
        with pytest.raises(InputError, match=rf"^indices: expected {re.escape(problem)}"):
            call()


# --- examples on demand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(1, 28, 28), (28, 28)])
@pytest.mark.parametrize("workers", [1, 2])
def test_examples_on_demand_train_like_those_in_memory(dtype: type[np.generic], shape: Shape, workers: int) -> None:
    data = noise(shape=shape, dtype=dtype)
    one, other, lazy = noisy_network(), noisy_network(), OnDemand(data)
    assert isinstance(lazy, Examples)
    runs = train(one, data, RECIPE, dev=data), train(other, lazy, RECIPE, dev=lazy, workers=workers)
    records = [[(record.loss, record.dev_loss, record.dev_accuracy) for record in run] for run in runs]
    assert records[0] == records[1]
    assert one.parameters.vector.tobytes() == other.parameters.vector.tobytes()
    assert one.input_range == other.input_range == ((0.0, 1.0) if dtype == np.uint8 else (0.0, 255.0))
    assert evaluate(one, data) == evaluate(one, (data.images, data.labels)) == evaluate(other, lazy)


@pytest.mark.parametrize("count", [1, 64, 65, 256, 300, 641])
def test_evaluation_in_parts_has_the_bits_of_the_whole(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, network = noise(count), noisy_network()
    outputs = network.predict(data.images)
    at_once = evaluate(network, data)
    monkeypatch.setattr(evaluation, "GATHERED_BYTES", 0)
    lazy = OnDemand(data)
    assert evaluate(network, lazy) == at_once
    assert at_once.accuracy == np.mean(outputs.argmax(axis=1) == data.labels)
    assert lazy.most == min(count, 256)


def test_evaluation_holds_a_part_of_the_images() -> None:
    data = Dataset(np.zeros((40_000, 1, 10, 100), np.float32), np.zeros(40_000, int))
    network = Network(noisy_network().model, (1, 10, 100))
    network.predict(data.images[:64])
    with at_most(100 * MIB):
        evaluate(network, data.split(1, seed=0)[0], workers=1)


def test_the_range_of_bytes_is_known_without_reading_them() -> None:
    lazy = OnDemand(noise())
    train(network := noisy_network(), lazy, RECIPE).close()
    assert network.input_range == (0.0, 1.0)
    assert lazy.most == 0


def test_the_range_is_that_of_all_finite_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "GATHERED_BYTES", 0)
    data, network = noise(600, dtype=np.float32), noisy_network()
    data.images[:256] = np.nan
    data.images[300], data.images[599, 0, 0, 0] = np.inf, -3
    train(network, data, RECIPE).close()
    assert network.input_range == (-3.0, 255.0)
    network.check_scale(data.images[:256])
    data.images[:] = np.nan
    train(network, data, RECIPE).close()
    assert network.input_range is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("targets", np.zeros(9, int), "targets: expected (200,), got (9,)"),
        ("targets", np.zeros(200, bool), "targets: expected integers or floats, got bool"),
        (
            "targets",
            np.zeros(200),
            "targets: expected class numbers, as there are classes, got float64 of shape (200,)",
        ),
        (
            "weights",
            np.zeros(200),
            "weights: expected numbers of at least 0, with a finite sum that is not 0, got 0 to 0",
        ),
        ("targets", np.zeros(200, np.uint8), "targets: expected an array of int64, got uint8"),
        ("targets", [0] * 200, "targets: expected an array of int64, got <class 'list'>"),
        ("targets", np.full(200, 10), "targets: expected class numbers below 10, got 10 to 10"),
        ("classes", ("a", "a"), "classes: expected a different name for each class, got 'a' 2 times"),
        ("dtype", np.uint8, "dtype: expected a dtype, such as np.dtype(np.uint8), got <class 'numpy.uint8'>"),
        ("dtype", np.dtype(int), "dtype: expected uint8 (0 to 255) or floats, got int64"),
        ("image_shape", (1, 0, 28), "image_shape: expected lengths of at least 1, got (1, 0, 28)"),
    ],
)
def test_examples_that_contradict_themselves_are_refused(name: str, value: object, problem: str) -> None:
    lazy = OnDemand(noise())
    setattr(lazy, name, value)
    for call, where in ((train, "train"), (evaluate, "evaluate")):
        with pytest.raises(InputError) as caught:
            call(noisy_network(), lazy)
        assert str(caught.value) == f"{where}: data: {problem}"


# --- digests ---------------------------------------------------------------------------------------------------------


def test_a_digest_is_the_sha256_of_everything() -> None:
    data = noise(3000)
    assert data.images.nbytes > 2 * MIB, "the images come in several pieces"
    content = repr((3000, (1, 28, 28), "|u1", tuple("abcdefghij"))).encode() + struct.pack("<3000q", *data.labels)
    expected = hashlib.sha256(content + data.images.tobytes()).hexdigest()
    assert digest(data) == digest(OnDemand(data)) == expected


@given(count=st.integers(2, 30), held_out=st.integers(1, 29), seed=st.integers(0, 99))
def test_a_view_has_the_digest_of_its_copy(count: int, held_out: int, seed: int) -> None:
    data = noise(count, (2, 3), np.float32)
    view = data.split(min(held_out, count - 1), seed)[0]
    told = digest(view)
    assert told == digest(Dataset(view.images.copy(), view.labels, view.classes)) == digest(view)


def test_the_order_of_bytes_leaves_the_digest_as_it_is() -> None:
    images, values = noise(30, (2, 3), np.float32).images, np.linspace(0, 1, 30)
    swapped = Dataset(images.astype(">f4"), values.astype(">f8"))
    there_and_back = pickle.loads(pickle.dumps(swapped))  # in which NumPy may turn the bytes
    assert digest(swapped) == digest(Dataset(images, values)) == digest(there_and_back)


def test_whatever_differs_changes_the_digest() -> None:
    data = noise(20)
    images, labels = data.images.copy(), data.labels.copy()
    images[7, 0, 3, 4] ^= 1
    labels[19] ^= 1
    others = [
        data,
        Dataset(images, data.labels, data.classes),
        Dataset(data.images, labels, data.classes),
        Dataset(data.images, data.labels, tuple("abcdefghik")),
        Dataset(data.images, data.labels, (*data.classes, "k")),
        Dataset(data.images[:, 0], data.labels, data.classes),
        Dataset(data.images.reshape(20, 1, 14, 56), data.labels, data.classes),
        Dataset(data.images.astype(np.float32), data.labels, data.classes),
        Dataset(data.images.view(np.float32), data.labels, data.classes),
        data.take(np.arange(20)[::-1]),
        data.take(np.arange(19)),
    ]
    assert len(set(map(digest, others))) == len(others)


# --- memory maps -----------------------------------------------------------------------------------------------------


def write_npy(folder: Path, images: Any = None, labels: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 60), ("test", 20)):
        np.save(folder / f"{split}-images.npy", noise(count).images if images is None else images[:count])
        np.save(folder / f"{split}-labels.npy", np.arange(count) % 10 if labels is None else labels[:count])
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, ">f4", np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 5, 6, 7), (4,)])
def test_npy_files_are_mapped(tmp_path: Path, dtype: Any, order: Any, shape: Shape) -> None:
    images = noise(60, shape).images.astype(dtype, order=order)
    splits = load(write_npy(tmp_path, images, (np.arange(60) % 7).astype(np.int16)))
    expected = images[:, np.newaxis] if len(shape) == 2 else images
    for data, count in ((splits.train, 60), (splits.test, 20)):
        np.testing.assert_array_equal(data.images, expected[:count], strict=True)
        np.testing.assert_array_equal(data.labels, np.arange(count) % 7, strict=True)
        assert not data.images.flags.writeable
        data.gather(np.arange(count), out := np.empty((count, *data.image_shape), data.dtype))
        np.testing.assert_array_equal(out, expected[:count])
    assert splits.train.classes == splits.test.classes == tuple("0123456")


def test_raw_idx_files_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(noise(10_000).images[:, 0].astype(np.uint8)))
    with at_most(MIB):
        images = read_idx(path)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, noise(10_000).images[:, 0])


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (np.zeros((60, 2, 2), int), None, "train-images.npy: expected uint8 (0 to 255) or floats, got int64"),
        (np.zeros(60), None, "train-images.npy: expected shape (N, C, *size) or (N, H, W), got (60,)"),
        (np.array([None] * 60), None, "train-images.npy: expected a .npy file of numbers, got object"),
        (np.zeros((60, 2), complex), None, "train-images.npy: expected a .npy file of numbers, got complex128"),
        (np.zeros((60, 0, 2)), None, "train-images.npy: expected axes of at least length 1, got (60, 0, 2)"),
        (None, np.zeros(30, int), "train-labels.npy: expected (60,), got (30,)"),
        (None, np.zeros(60), "train-labels.npy: expected whole numbers, got float64"),
        (None, np.full(60, 10**9), f"{CLASS_NUMBERS}, got 1000000000 to 1000000000"),
        (None, np.full(60, -1), f"{CLASS_NUMBERS}, got -1 to -1"),
        (None, np.full(60, 2**64 - 1, np.uint64), f"{CLASS_NUMBERS}, got -1 to -1"),
    ],
)
def test_npy_files_that_are_no_data_set_are_refused(tmp_path: Path, images: Any, labels: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load(write_npy(tmp_path, images, labels))
    assert str(caught.value).removeprefix(f"{tmp_path}/") == problem


def test_a_missing_npy_file_is_named(tmp_path: Path) -> None:
    for name in ("train-labels", "train-images", "test-labels"):
        write_npy(tmp_path)
        (tmp_path / f"{name}.npy").unlink()
        with pytest.raises(InputError, match=rf"{name}\.npy: expected a \.npy file of numbers, got .*No such file"):
            load(tmp_path)


def test_a_run_on_npy_files_can_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_npy(tmp_path / "data"), tmp_path / "run"
    command = ["train", "--data", str(data), "--out", str(run), "--epochs", "1", "--workers", "1", "--dev-size", "7"]
    assert main(command) == main(["evaluate", str(run)]) == 0
    assert "on 20 images\n" in capsys.readouterr().out


LIMITED = """
import resource, sys
from pathlib import Path

import numpy as np

from lowered_cnn import Recipe, Sequential, Conv2D, Dense, Flatten, GlobalAvgPool, Network, evaluate, train
from lowered_cnn.data import load


def main():
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    images = next(folder.glob("train-images*"))
    resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
    try:
        images.read_bytes()
    except MemoryError:
        print("too large to read")
    splits = load(folder)
    data, dev = splits.train.split(300, seed=0)
    network = Network(Sequential(Conv2D(2, 3, 2), GlobalAvgPool(), Dense(2)), data.image_shape, seed=0)
    training = train(network, data, Recipe(epochs=1, batch_size=64), dev=dev, workers=workers)
    losses = [next(training).loss for _ in range(5)]
    training.close()
    print(len(data), evaluate(network, dev).loss > 0, network.input_range, *losses)


if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a limit that only Linux enforces")
@pytest.mark.parametrize("kind", ["idx", "npy"])
def test_training_reads_from_a_file_larger_than_its_memory(tmp_path: Path, kind: str) -> None:
    """3 GB, which are a hole in the file but for the last image, in a process that may have 1 GB."""
    count, side = 60_000, 224
    for split, n in (("train", count), ("test", 10)):
        labels = np.arange(n) % 2
        images = tmp_path / f"{split}-images.npy"
        if kind == "idx":
            images = tmp_path / f"{split}-images-idx3-ubyte"
            images.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, n, side, side))
            (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels.astype(np.uint8)))
        else:
            np.save(tmp_path / f"{split}-labels.npy", labels)
            with images.open("wb") as file:
                about: Any = {"descr": "|u1", "fortran_order": False, "shape": (n, side, side)}
                np.lib.format.write_array_header_1_0(file, about)
        with images.open("ab") as file:
            file.truncate(file.tell() + n * side * side)
    (script := tmp_path / "script.py").write_text(LIMITED)
    printed = []
    for workers in ("1", "2"):
        done = subprocess.run([sys.executable, script, tmp_path, workers], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0].startswith("too large to read\n59700 True (0.0, 1.0) 0.69")
    assert printed[0] == printed[1]
