"""The questions that a fresh process answers: how fast is this framework, how fast is this machine?"""

import dataclasses
import time

import numpy as np

from benchmarking.framework import Setting
from benchmarking.frameworks import load
from benchmarking.timing import measure as time_run
from lowered_cnn import Network
from lowered_cnn.models import MODELS

INPUT_SHAPE = (1, 28, 28)
SIDE = 2048
BIAS = 0.01
"""Added to all parameters before outputs are compared: biases start at zero, so losing one would go unnoticed."""


def measure(
    framework: str, mode: str, network: str, batch: int, cores: int, jobs: list[str], seconds: float
) -> dict[str, dict[str, float]]:
    """Return the timing of each job."""
    measured = load(framework)(Network(MODELS[network](), INPUT_SHAPE), Setting(mode, batch, cores))
    runs = {"training": measured.training, "inference": measured.inference}
    return {job: dataclasses.asdict(time_run(runs[job](), seconds)) for job in jobs}


def trained_outputs(framework: str, mode: str, network: str, batch: int, cores: int, steps: int) -> list[list[float]]:
    """Return the outputs for a batch of images after `steps` training steps: all frameworks must agree on them."""
    described = Network(MODELS[network](), INPUT_SHAPE)
    described.parameters.vector += BIAS
    measured = load(framework)(described, Setting(mode, batch, cores))
    if steps:
        run = measured.training()
        for _ in range(steps):
            run.step()
        run.wait()
    outputs: list[list[float]] = measured.predict(measured.images(1)[0]).tolist()
    return outputs


def peak(cores: int, seconds: float) -> float:
    """Return the operations per second of the fastest of several 2048 x 2048 matrix products in float32."""
    a, b = np.random.default_rng(cores).random((2, SIDE, SIDE), np.float32)
    out = np.empty_like(a)
    best, end = float("inf"), time.perf_counter() + 2 * seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
