"""PyTorch: eager, channels last, and compiled."""

import re
from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarking.framework import OPTIMIZER, Floats, Framework, Setting
from benchmarking.layers import Placed, placed, sides, unknown
from benchmarking.timing import Timed
from lowered_cnn import BatchNorm, Conv2D, Dense, Flatten, MaxPool, Network, ReLU


class Measured(Framework):
    """A `torch.nn.Sequential`, with PyTorch's fused SGD."""

    def __init__(self, network: Network, setting: Setting) -> None:
        super().__init__(network, setting)
        torch.set_num_threads(setting.cores)
        self.format = torch.channels_last if setting.mode == "channels_last" else torch.contiguous_format
        self.module = module(network).to(memory_format=self.format)

    def training(self) -> Timed:
        """Return zero_grad, loss, backward and step on tensors in memory."""
        self.module.train()
        optimizer = torch.optim.SGD(
            self.module.parameters(), lr=OPTIMIZER.learning_rate, momentum=OPTIMIZER.momentum, fused=True
        )
        loss = self._compiled(lambda x, y: functional.cross_entropy(self.module(x), y))
        batches = cycle(list(zip(map(self._tensor, self.images()), map(torch.from_numpy, self.labels()), strict=True)))

        def step() -> None:
            optimizer.zero_grad()
            loss(*next(batches)).backward()
            optimizer.step()

        return Timed(step)

    def inference(self) -> Timed:
        """Return the module's outputs in inference mode, for a tensor in memory."""
        forward, x = self._compiled(self.module.eval()), self._tensor(self.images(1)[0])

        def step() -> None:
            with torch.inference_mode():
                forward(x)

        return Timed(step)

    def predict(self, images: Floats) -> Floats:
        """Return the module's outputs."""
        with torch.inference_mode():
            outputs: Floats = self._compiled(self.module.eval())(self._tensor(images)).numpy()
        return outputs

    def kernels(self) -> str:
        """Return the instructions of PyTorch's own kernels, and the version of MKL, which chooses its own."""
        mkl = re.search(r"Math Kernel Library Version ([\d.]+)", torch.__config__.show())
        return ", ".join([torch.backends.cpu.get_cpu_capability(), *([f"MKL {mkl[1]}"] if mkl else [])])

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = torch.compile(function) if self.setting.mode == "compile" else function
        return compiled

    def _tensor(self, images: Floats) -> Any:
        return torch.from_numpy(images).contiguous(memory_format=self.format)


def module(network: Network) -> Any:
    """Return the network as a module, with the same weights."""
    return nn.Sequential(*map(_layer, placed(network)))


def _layer(place: Placed) -> Any:
    match place.layer:
        case Conv2D(groups=groups, bias=bias) as conv:
            sweep = conv.sweep(place.input_shape, place.name)
            window, padding = sweep.window, sides(sweep)
            channels = (place.input_shape[0], conv.filters)
            return _filled(
                nn.Conv2d(*channels, window.kernel, window.stride, padding, window.dilation, groups, bias), place
            )
        case Dense(units=units, bias=bias):
            return _filled(nn.Linear(place.input_shape[0], units, bias), place)
        case MaxPool() as pool:
            sweep = pool.sweep(place.input_shape, place.name)
            return nn.MaxPool2d(sweep.window.kernel, sweep.window.stride, sides(sweep))
        case BatchNorm(momentum=momentum, epsilon=epsilon):
            return _filled(nn.BatchNorm2d(place.input_shape[0], epsilon, momentum), place)
        case ReLU():
            return nn.ReLU()
        case Flatten():
            return nn.Flatten()
    raise unknown(place)


def _filled(layer: Any, place: Placed) -> Any:
    with torch.no_grad():
        for name, values in place.weights.items():
            getattr(layer, name).copy_(torch.from_numpy(values))
    return layer
