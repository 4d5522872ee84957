"""The questions that a fresh process answers: how fast is this framework, how fast is this machine?"""

import dataclasses
import os

from benchmarking.framework import Setting
from benchmarking.frameworks import default_mode, load
from benchmarking.timing import measure as time_run
from lowered_cnn import Dense, Network, Sequential
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


def speed(framework: str, cores: int, seconds: float) -> dict[str, object]:
    """Return the kernels that the framework names, and the operations per second of its fastest 2048 x 2048 product.

    A dense layer for as many images is such a product. The convolutions before it let oneDNN print what it uses.
    """
    os.environ["ONEDNN_VERBOSE"] = "1"  # read when the framework is loaded
    framed, mode = load(framework), default_mode(framework)
    small = framed(Network(MODELS["lenet5"](), INPUT_SHAPE), Setting(mode, 1, cores))
    small.predict(small.images(1)[0])
    large = framed(Network(Sequential(Dense(SIDE, bias=False)), (SIDE,)), Setting(mode, SIDE, cores))
    return {"kernels": large.kernels(), "flops": 2 * SIDE**3 / time_run(large.product(), seconds).minimum}
