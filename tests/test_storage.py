"""Networks on disk: what is saved comes back, and what is no network is refused."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import normal

from lowered_cnn import (
    AvgPool,
    Conv1D,
    Conv2D,
    Conv3D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    InputError,
    MaxPool,
    Network,
    ReLU,
    Sequential,
    load,
    save,
)
from lowered_cnn.arrays import Shape
from lowered_cnn.fusion import fuse

IMAGE = (2, 9, 8)
MODEL = Sequential(
    Conv2D(4, (3, 2), 1, ((1, 0), (2, 1)), 2, 2), ReLU(), MaxPool(2, None, "same"),
    Sequential(Conv2D(6, 1, bias=False), Dropout(0.25)), AvgPool((2, 1), count_include_pad=False),
    Flatten(), Dense(4, bias=False),
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "input_shape"),
    [
        (MODEL, IMAGE),
        (Sequential(Conv1D(2, 3), GlobalAvgPool()), (1, 7)),
        (Sequential(Conv3D(2, (1, 2, 2)), Flatten()), (1, 3, 4, 5)),
        (Sequential(ReLU()), (3,)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_comes_back_as_it_was(
    model: Sequential, input_shape: Shape, dtype: type[np.floating], tmp_path: Path
) -> None:
    network = Network(model, input_shape, seed=3, dtype=dtype)
    save(network, tmp_path / "network.safetensors")
    again = load(tmp_path / "network.safetensors")
    assert again.model == model
    assert again.input_shape == input_shape
    assert again.parameters.vector.dtype == dtype
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    images = normal(2, *input_shape)
    np.testing.assert_array_equal(again.predict(images), network.predict(images))


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save(Network(MODEL, IMAGE, seed=1), path)
    save(Network(MODEL, IMAGE, seed=2), str(path))
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(load(path).parameters.vector, Network(MODEL, IMAGE, seed=2).parameters.vector)


def test_windows_made_of_arrays_are_saved_as_numbers(tmp_path: Path) -> None:
    array: Any = np.array
    save(Network(Sequential(Conv2D(2, array([3, 2]), padding=array([[1, 0], [0, 1]]))), IMAGE), tmp_path / "network")
    assert load(tmp_path / "network").model == Sequential(Conv2D(2, (3, 2), padding=((1, 0), (0, 1))))


OWN = """
from dataclasses import dataclass
import lowered_cnn as cnn
from lowered_cnn.fusion.fused import FusedConv

@dataclass(frozen=True)
class Dense(cnn.Dense):
    "One that hides ours."

class Inner:
    class Conv2D(cnn.Conv2D):
        "Inside of a class, and without a decorator of its own."

@dataclass(frozen=True)
class Gate(cnn.ReLU):
    layers: tuple[cnn.Layer, ...] = ()

class Stack(cnn.Sequential):
    pass

def made():
    class Dense(cnn.Dense):
        pass
    return Dense(2)

Renamed = type("Other", (cnn.ReLU,), {"__module__": "own"})
Hidden = type("Dense", (cnn.Dense,), {"__module__": "own"})
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module with layers of one's own."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return importlib.import_module("own")


def test_layers_of_ones_own_come_back_as_themselves(own: Any, tmp_path: Path) -> None:
    inner = own.Stack(own.Inner.Conv2D(2, 3), own.Gate((own.Gate(), ReLU())))
    model = Sequential(Conv2D(3, 2), inner, Flatten(), own.Dense(4), Dense(2))
    network = Network(model, IMAGE)
    save(network, tmp_path / "network")
    again = load(tmp_path / "network")
    assert again.model == model
    *_, first, second = again.model.layers
    assert (type(first), type(second)) == (own.Dense, Dense)
    [stack] = [layer for layer in again.model.layers if isinstance(layer, Sequential)]
    assert [type(stack), *map(type, stack.layers)] == [own.Stack, own.Inner.Conv2D, own.Gate]
    images = normal(2, *IMAGE)
    np.testing.assert_array_equal(again.predict(images), network.predict(images))


def test_no_module_is_imported_for_a_file(own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Network(Sequential(own.Dense(2)), (3,)), tmp_path / "network")
    monkeypatch.delitem(sys.modules, "own")
    with pytest.raises(InputError, match=r"got layer: expected a layer in an imported module, got own:Dense$"):
        load(tmp_path / "network")
    assert "own" not in sys.modules


def test_classes_of_the_package_that_are_not_public_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found by its name, got lowered_cnn\.fusion\.fused:FusedConv$"):
        save(Network(fuse(Sequential(Conv2D(4, 3)), fold=False), (1, 5, 5)), tmp_path / "network")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda own: own.made(), "own:made.<locals>.Dense"),
        (lambda own: own.Renamed(), "own:Other"),
        (lambda own: own.Hidden(2), "own:Dense"),
    ],
)
def test_classes_that_are_not_found_by_their_name_are_refused(make: Any, name: str, own: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        save(Network(Sequential(Flatten(), make(own)), (1, 5, 5)), tmp_path / "network")
    assert str(caught.value).endswith(f": expected a class that can be found by its name, got {name}")
    assert not (tmp_path / "network").exists()


@pytest.mark.parametrize(
    "name",
    [
        "FusedConv", "fused.FusedConv", "conv.Conv", "Conv", "Layer", "Site", "Sequential.names", "own:Missing",
        "own:cnn", "own:cnn.Dense", "own:Dense.kind", "own:FusedConv", "own:made", "own:", ":Dense", "os:system",
        "lowered_cnn:Dense", "lowered_cnn.layers:Dense", "lowered_cnn.fusion.fused:FusedConv",
        "lowered_cnn.layers.conv:Conv",
    ],
)  # fmt: skip
def test_files_that_name_another_class_are_refused(name: str, own: Any, tmp_path: Path) -> None:
    header = {**SOUND, "model": {"layer": "Sequential", "layers": [{**DENSE, "layer": name}]}}
    refused = refusal(tmp_path / "x", header, dense1_weight=(2, 3))
    assert refused.startswith("expected the description of a network, got ")
    assert ("got layer: " in refused) == (name != "Layer")


def test_other_tools_can_read_the_parameters(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    network = Network(MODEL, IMAGE)
    save(network, tmp_path / "network.safetensors")
    tensors = safetensors.load_file(tmp_path / "network.safetensors")
    assert set(tensors) == set(network.parameters)
    np.testing.assert_array_equal(tensors["conv1.weight"], network.parameters["conv1.weight"])


@pytest.mark.parametrize("content", [b"", b"no safetensors", bytes(100)])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(InputError, match="other: expected a safetensors file, got "):
        load(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    save(Network(MODEL, IMAGE), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut: expected a safetensors file, got "):
        load(path)


def test_no_file_is_reported_by_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


DENSE = {"layer": "Dense", "units": 2, "bias": False}
SOUND = {"model": {"layer": "Sequential", "layers": [DENSE]}, "input_shape": [3], "dtype": "float32"}


def refusal(path: Path, header: object, **tensors: Shape) -> str:
    """Write a file with this header and tensors of these shapes, and return why it is refused."""
    from safetensors.numpy import save_file

    zeros = {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}
    metadata = None if header is None else {"lowered_cnn": header if isinstance(header, str) else json.dumps(header)}
    save_file({name.replace("_", "."): array for name, array in zeros.items()}, path, metadata)
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_sound_file_written_by_hand_is_read(tmp_path: Path) -> None:
    assert "got ['other']" in refusal(tmp_path / "x", SOUND, other=(2, 3))
    from safetensors.numpy import save_file

    save_file({"dense1.weight": np.ones((2, 3), np.float32)}, tmp_path / "y", {"lowered_cnn": json.dumps(SOUND)})
    assert load(tmp_path / "y").predict(np.ones((1, 3))).tolist() == [[3, 3]]


def test_tensors_of_other_names_or_shapes_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x", SOUND) == "expected tensors ['dense1.weight'], got []"
    assert refusal(tmp_path / "x", SOUND, dense1_weight=(3, 2)) == "dense1.weight: expected (2, 3), got (3, 2)"


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x", None, w=(2,)) == "expected a 'lowered_cnn' entry in the file's metadata, got none"


def test_a_header_that_asks_for_too_much_is_refused_before_it_gets_it(tmp_path: Path) -> None:
    huge = {**SOUND, "model": {"layer": "Sequential", "layers": [{**DENSE, "units": 10**12}]}}
    told = refusal(tmp_path / "x", huge, dense1_weight=(2, 3))
    assert told == f"dense1.weight: expected ({10**12}, 3), got (2, 3)"


def test_tensors_that_numpy_lacks_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(InputError, match="x: expected a "):  # which one: another library may teach NumPy bfloat16
        load(tmp_path / "x")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: expected a safetensors file, got a folder"


@pytest.mark.parametrize(
    "header",
    [
        "no JSON",
        [],
        {},
        {**SOUND, "dtype": "float16"},
        {**SOUND, "dtype": "nothing"},
        {**SOUND, "input_shape": [3, 3]},
        {**SOUND, "input_shape": 3},
        {**SOUND, "model": None},
        {**SOUND, "model": DENSE},
        {**SOUND, "model": {"layer": "Sequential", "layers": [{"layer": "Unknown"}]}},
        {**SOUND, "model": {"layer": "Sequential", "layers": [{"layer": "Dense", "sides": 2}]}},
        {**SOUND, "model": {"layer": "Sequential", "layers": 5}},
        {**SOUND, "model": {"layer": "Conv", "filters": 1, "kernel": 1}},
        {**SOUND, "dtype": None},
        {**SOUND, "model": {"layer": "Sequential", "layers": [5]}},
        {**SOUND, "model": {"layer": ["Sequential"], "layers": [DENSE]}},
        '{"model": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"model": ' + '{"layer": "Sequential", "layers": [' * 400 + "]}" * 400 + ', "input_shape": [3]}',
    ],
    ids=lambda header: str(header)[:80],
)
def test_headers_that_describe_no_network_are_refused(header: Any, tmp_path: Path) -> None:
    told = refusal(tmp_path / "x", header, dense1_weight=(2, 3))
    assert told.startswith(("expected the description of a network, got", "expected a header in JSON, got"))
