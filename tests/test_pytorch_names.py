"""Files that PyTorch and we both load: in both directions with PyTorch itself, and the names without it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import assert_close, disturbed, normal
from safetensors.numpy import load_file, save_file

from lowered_cnn import (
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    InputError,
    LayerNorm,
    MaxPool,
    Network,
    ReLU,
    Residual,
    Sequential,
)
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.interop.pytorch import load_pytorch, pytorch_names, save_pytorch
from lowered_cnn.verify.sampled import draw

MODEL = Sequential(
    Conv2D(6, 3, groups=2, bias=False), BatchNorm(), ReLU(), MaxPool(2),
    Sequential(Conv2D(4, 3, 2, 1), ReLU()), ConvTranspose2D(5, 2, 2), Dropout(), Conv2D(7, 1), GlobalAvgPool(),
    Dense(8), LayerNorm(), BatchNorm(), Dense(3, bias=False),
)  # fmt: skip
SHAPE: Shape = (4, 12, 12)

NAMES = {
    "conv1.weight": "0.weight",
    "batch_norm1.weight": "1.weight",
    "batch_norm1.bias": "1.bias",
    "batch_norm1.running_mean": "1.running_mean",
    "batch_norm1.running_var": "1.running_var",
    "sequential1.conv1.weight": "4.0.weight",
    "sequential1.conv1.bias": "4.0.bias",
    "conv_transpose1.weight": "5.weight",
    "conv_transpose1.bias": "5.bias",
    "conv2.weight": "7.weight",
    "conv2.bias": "7.bias",
    "dense1.weight": "10.weight",
    "dense1.bias": "10.bias",
    "layer_norm1.weight": "11.weight",
    "layer_norm1.bias": "11.bias",
    "batch_norm2.weight": "12.weight",
    "batch_norm2.bias": "12.bias",
    "batch_norm2.running_mean": "12.running_mean",
    "batch_norm2.running_var": "12.running_var",
    "dense2.weight": "13.weight",
}


def module(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(6, 4, 3, 2, 1), nn.ReLU()), nn.ConvTranspose2d(4, 5, 2, 2), nn.Dropout(),
        nn.Conv2d(5, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 8), nn.LayerNorm(8), nn.BatchNorm1d(8),
        nn.Linear(8, 3, bias=False),
    ).eval()  # fmt: skip


def test_the_map_of_names() -> None:
    assert pytorch_names(MODEL, SHAPE) == NAMES
    branches = Sequential(Residual(Conv2D(2, 1)), GlobalMaxPool(), Concatenate(Dense(1), Sequential(ReLU(), Dense(2))))
    names = {
        "residual1.body.conv1.weight": "0.body.0.weight",
        "residual1.body.conv1.bias": "0.body.0.bias",
        "concatenate1.branch1.dense1.weight": "3.branch1.0.weight",
        "concatenate1.branch1.dense1.bias": "3.branch1.0.bias",
        "concatenate1.branch2.dense1.weight": "3.branch2.1.weight",
        "concatenate1.branch2.dense1.bias": "3.branch2.1.bias",
    }
    assert pytorch_names(branches, (2, 3, 3)) == names


def test_our_file_is_loaded_by_pytorch(tmp_path: Path, torch: Any) -> None:
    from safetensors.torch import load_file as load_tensors

    network, theirs = disturbed(MODEL, SHAPE), module(torch)
    save_pytorch(network, tmp_path / "model.safetensors")
    theirs.load_state_dict(load_tensors(tmp_path / "model.safetensors"))
    images = normal(5, *SHAPE).astype(np.float32)
    with torch.no_grad():
        assert_close(network.predict(images), theirs(torch.tensor(images)).numpy(), 1e-5)


def test_pytorchs_file_is_loaded_by_us(tmp_path: Path, torch: Any) -> None:
    from safetensors.torch import save_file as save_tensors

    torch.manual_seed(0)
    theirs = module(torch).train()
    images = normal(5, *SHAPE).astype(np.float32)
    theirs(torch.tensor(images))  # statistics that are not those of the start
    save_tensors(theirs.state_dict(), tmp_path / "model.safetensors")
    network = load_pytorch(tmp_path / "model.safetensors", MODEL, SHAPE)
    with torch.no_grad():
        assert_close(network.predict(images), theirs.eval()(torch.tensor(images)).numpy(), 1e-5)


def test_a_round_trip_keeps_the_bits(tmp_path: Path) -> None:
    network = disturbed(MODEL, SHAPE)
    save_pytorch(network, tmp_path / "model.safetensors")
    again = load_pytorch(tmp_path / "model.safetensors", MODEL, SHAPE)
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    counts = {"1.num_batches_tracked", "12.num_batches_tracked"}
    assert load_file(tmp_path / "model.safetensors").keys() == {*NAMES.values(), *counts}


def test_a_layer_or_a_list_is_loaded_as_the_network_that_it_makes(tmp_path: Path) -> None:
    images = normal(3, 4).astype(np.float32)
    for model in Dense(2), [Dense(3), Dense(2)]:
        network, path = Network(model, (4,), seed=1), tmp_path / "model.safetensors"
        save_pytorch(network, path)
        tensors = load_file(path)
        in_order = {name: tensors[name] for name in pytorch_names(network.model, (4,)).values()}
        for again in load_pytorch(path, model, (4,)), load_pytorch(in_order, model, (4,), "order"):
            np.testing.assert_array_equal(again.predict(images), network.predict(images))


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = Sequential(Conv1D(2, 3), Flatten())
    save_file({"0.weight": np.zeros((2, 1, 3), np.float32)}, path)
    with pytest.raises(InputError) as caught:
        load_pytorch(path, model, (1, 5))
    assert str(caught.value) == f"{path}: expected 0.bias for conv1.bias, got only 0.weight"
    save_file({"0.weight": np.zeros((2, 1, 4), np.float32), "0.bias": np.zeros(2, np.float32)}, path)
    with pytest.raises(InputError) as caught:
        load_pytorch(path, model, (1, 5))
    assert str(caught.value) == f"{path}: 0.weight for conv1.weight: expected (2, 1, 3), got (2, 1, 4)"


class Renamed:
    """A drawn network whose parameters have names that nobody could guess, in the order of its layers."""

    def __init__(self, seed: int) -> None:
        specimen = draw(seed)
        self.model, self.shape = specimen.model, specimen.input_shape
        self.network = disturbed(self.model, self.shape)
        ours = list(pytorch_names(self.model, self.shape))
        numbers = np.random.default_rng(seed).permutation(len(ours))
        self.map = {name: f"block.{number}" for name, number in zip(ours, numbers, strict=True)}
        self.state: dict[str, Array] = {theirs: self.network.parameters[name] for name, theirs in self.map.items()}

    def load(self, source: Any, names: Any) -> Array:
        return load_pytorch(source, self.model, self.shape, names).parameters.vector

    def refusal(self, state: dict[str, Array], names: Any) -> str:
        with pytest.raises(InputError) as caught:
            self.load(state, names)
        return str(caught.value)


@pytest.mark.parametrize("seed", range(12))
def test_other_names_are_taken_by_a_map_or_in_order(seed: int, tmp_path: Path) -> None:
    case = Renamed(seed)
    counted = {"block.num_batches_tracked": np.array(3), **case.state}
    save_file(counted, tmp_path / "model.safetensors")
    for source, names in (
        (tmp_path / "model.safetensors", case.map),
        (dict(sorted(counted.items())), case.map),
        (counted, "order"),
    ):
        np.testing.assert_array_equal(case.load(source, names), case.network.parameters.vector)


@pytest.mark.parametrize("seed", range(12))
def test_the_tensor_that_does_not_fit_is_named(seed: int) -> None:
    case = Renamed(seed)
    place = seed % len(case.map)
    ours, theirs = list(case.map.items())[place]
    values = case.state[theirs]
    wrong = case.state | {theirs: values[None]}
    for names in (case.map, "order"):
        told = f"tensors: {theirs} for {ours}: expected {values.shape}, got {values[None].shape}"
        assert case.refusal(wrong, names) == told
        told = f"tensors: {theirs}: expected floating-point numbers, got int64"
        assert case.refusal(case.state | {theirs: values.astype(np.int64)}, names) == told
        told = f"tensors: expected {len(case.map)} tensors, as the network has, got extra besides"
        assert case.refusal(case.state | {"extra": values}, names) == told
    fewer = {name: array for name, array in case.state.items() if name != theirs}
    assert case.refusal(fewer, case.map).startswith(f"tensors: expected {theirs} for {ours}, got only ")
    cut = dict(list(case.state.items())[:-1])
    assert case.refusal(cut, "order").startswith(f"tensors: expected a tensor for {list(case.map)[-1]}, got only ")
    shorter = {name: other for name, other in case.map.items() if name != ours}
    assert case.refusal(case.state, shorter).startswith(f"tensors: expected a tensor for {ours}, got only ")


def test_invalid_names_are_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", Sequential(Dense(1))
    save_file({"weight": np.ones((1, 2), np.float32)}, path)
    arguments: list[tuple[Any, Any, str]] = [
        (path, "order", "load_pytorch: names: expected a map, as a safetensors file does not keep the order"),
        (
            path,
            "sorted",
            'load_pytorch: names: expected a map from dense1.weight, dense1.bias, or "order", got \'sorted',
        ),
        (path, {"conv1.weight": "weight"}, "load_pytorch: names: expected a map from dense1.weight, dense1.bias, or "),
        ({}, "order", "tensors: expected a tensor for dense1.weight, got none"),
        ({"weight": [[1], [2, 3]]}, "order", "tensors: weight: expected an array, got ValueError: "),
    ]
    for source, names, told in arguments:
        with pytest.raises(InputError) as caught:
            load_pytorch(source, model, (2,), names)
        assert str(caught.value).startswith(told)


@pytest.mark.parametrize("double", [False, True])
def test_a_module_that_is_not_a_sequential_is_loaded(double: bool, tmp_path: Path, torch: Any) -> None:
    from safetensors.torch import save_file as save_tensors

    nn = torch.nn

    class Net(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4 * 6 * 6, 3)

        def forward(self, x: Any) -> Any:
            return self.head(torch.relu(self.norm(self.stem(x))).flatten(1))

    torch.manual_seed(0)
    theirs = Net().double() if double else Net()
    images: Array = normal(5, 1, 8, 8).astype(np.float64 if double else np.float32)
    theirs(torch.tensor(images))
    model = Sequential(Conv2D(4, 3), BatchNorm(), ReLU(), Flatten(), Dense(3))
    modules = {"conv1": "stem", "batch_norm1": "norm", "dense1": "head"}
    names = {}
    for ours in pytorch_names(model, (1, 8, 8)):
        layer, parameter = ours.split(".")
        names[ours] = f"{modules[layer]}.{parameter}"
    save_tensors(theirs.state_dict(), tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(images)).numpy()
    for network in (
        load_pytorch(theirs.state_dict(), model, (1, 8, 8), "order"),
        load_pytorch(tmp_path / "model.safetensors", model, (1, 8, 8), names),
    ):
        assert network.parameters.vector.dtype == images.dtype
        assert_close(network.predict(images), expected, 1e-12 if double else 1e-5)


def test_whole_numbers_are_not_taken_for_parameters(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    save_file({"0.weight": np.ones((2, 3), np.int64), "0.bias": np.zeros(2, np.float32)}, path)
    with pytest.raises(InputError, match=r"0\.weight: expected floating-point numbers, got int64$"):
        load_pytorch(path, Sequential(Dense(2)), (3,))
