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
    ReLU,
    Residual,
    Sequential,
)
from lowered_cnn.arrays import Shape
from lowered_cnn.interop.pytorch import load_pytorch, pytorch_names, save_pytorch

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


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = Sequential(Conv1D(2, 3), Flatten())
    save_file({"0.weight": np.zeros((2, 1, 3), np.float32)}, path)
    with pytest.raises(InputError) as caught:
        load_pytorch(path, model, (1, 5))
    assert str(caught.value) == f"{path}: expected tensors ['0.bias', '0.weight'], got ['0.weight']"
    save_file({"0.weight": np.zeros((2, 1, 4), np.float32), "0.bias": np.zeros(2, np.float32)}, path)
    with pytest.raises(InputError) as caught:
        load_pytorch(path, model, (1, 5))
    assert str(caught.value) == f"{path}: conv1.weight: expected (2, 1, 3), got (2, 1, 4)"


def test_whole_numbers_are_not_taken_for_parameters(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    save_file({"0.weight": np.ones((2, 3), np.int64), "0.bias": np.zeros(2, np.float32)}, path)
    with pytest.raises(InputError, match=r"0\.weight: expected floating-point numbers, got int64$"):
        load_pytorch(path, Sequential(Dense(2)), (3,))
