"""Train a network on MNIST, or on your own images, and test it."""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lowered_cnn import SGD, Adam, Constant, Cosine, Dataset, InputError, Network, Recipe, StepDecay, __version__
from lowered_cnn import evaluate as evaluate_network
from lowered_cnn import train as train_network
from lowered_cnn.cli.arguments import at_least, positive
from lowered_cnn.cli.run_folder import RunFolder, check_out
from lowered_cnn.cores import usable_cores
from lowered_cnn.data import kind_of
from lowered_cnn.data import load as load_data
from lowered_cnn.models import MODELS
from lowered_cnn.optimizers import Optimizer
from lowered_cnn.schedules import Schedule
from lowered_cnn.storage import JSON
from lowered_cnn.training import BEST
from lowered_cnn.training.workers import POSIX
from lowered_cnn.verify import verify_forms

DEFAULT = Recipe()
RECIPES = {"default": ("compact", DEFAULT), "best": ("deep", BEST)}
"""Each recipe with its network."""
OPTIMIZERS: dict[str, Optimizer] = {"sgd": DEFAULT.optimizer, "adam": Adam()}
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(),
    "step": StepDecay(),
    "cosine": Cosine(),
    "one-cycle": DEFAULT.schedule,
}
DEV_PART = 12
"""By default one twelfth of the training set is held out: 5,000 of MNIST's 60,000."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="IDX or .npy files, or one sub-folder of images per class (MNIST)"
    )
    recipes = "default: 99.1 %% of MNIST in ten seconds on 2 cores; best: 99.7 %% in about twelve minutes"
    parser.add_argument("--recipe", choices=RECIPES, default="default", help=recipes)
    parser.add_argument("--model", choices=MODELS, help=f"the network ({_by_recipe(lambda model, _: model)})")
    epochs, batch_size = _by_recipe(lambda _, recipe: recipe.epochs), _by_recipe(lambda _, recipe: recipe.batch_size)
    parser.add_argument("--epochs", type=at_least(1), help=f"({epochs})")
    parser.add_argument("--batch-size", type=at_least(1), help=f"({batch_size})")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="(sgd)")
    parser.add_argument("--learning-rate", type=positive(), help="its peak (sgd: 0.05, adam: 0.001)")
    parser.add_argument("--schedule", choices=SCHEDULES, help="(one-cycle)")
    parser.add_argument("--dev-size", type=at_least(0), help="training images held out (one in 12)")
    workers = usable_cores() if POSIX else 1
    parser.add_argument("--workers", type=at_least(1), default=workers, help="processes (%(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=DEFAULT.seed, help="(%(default)s)")
    parser.add_argument("--out", type=Path, metavar="RUN", help="the folder to write (runs/1, runs/2, ...)")
    text = "check first that all forms of this network agree, which takes seconds; exit with 1 if they do not"
    parser.add_argument("--verify", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last")


def run(arguments: argparse.Namespace) -> int:
    """Load, train, test, save, report; return 1 if the network was to be verified, and does not pass."""
    start = time.perf_counter()
    if arguments.out:
        check_out(arguments.out)
    splits = load_data(arguments.data)
    data, dev = _hold_out(splits.train, arguments.dev_size, arguments.seed)
    model, recipe = _chosen(arguments)
    network = Network(MODELS[model](len(data.classes)), data.image_shape, seed=arguments.seed)
    if arguments.verify and not (certificate := verify_forms(network, loss=recipe.loss)).passed:
        print(certificate, file=sys.stderr)
        return 1
    folder = RunFolder.create(arguments.out, _config(arguments, model, recipe, data))
    train_seconds = _train(network, data, dev, recipe, arguments.workers, folder)
    folder.save(network)
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is reported below
        test = evaluate_network(network, splits.test, recipe.loss, workers=arguments.workers)
    if not math.isfinite(test.loss):
        raise InputError("test loss", "a finite number (try a lower --learning-rate)", test.loss)
    result = {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "epochs": recipe.epochs,
        "train_seconds": train_seconds,
        "total_seconds": time.perf_counter() - start,
        "images_per_second": len(data) * recipe.epochs / train_seconds,
        "workers": arguments.workers,
        "seed": arguments.seed,
        "run": str(folder.path),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"test accuracy {test.accuracy:.2%}, loss {test.loss:.4f}; "
            f"trained in {train_seconds:.1f} s, {result['total_seconds']:.1f} s in all; saved in {folder.path}"
        )
    return 0


def _hold_out(data: Dataset, dev_size: int | None, seed: int) -> tuple[Dataset, Dataset | None]:
    count = len(data) // DEV_PART if dev_size is None else dev_size
    return data.split(count, seed) if count else (data, None)


def _chosen(arguments: argparse.Namespace) -> tuple[str, Recipe]:
    """Return the chosen network and recipe, with the options applied."""
    model, recipe = RECIPES[arguments.recipe]
    optimizer = OPTIMIZERS[arguments.optimizer] if arguments.optimizer else recipe.optimizer
    if arguments.learning_rate is not None:
        assert isinstance(optimizer, SGD | Adam)
        optimizer = dataclasses.replace(optimizer, learning_rate=arguments.learning_rate)
    recipe = dataclasses.replace(
        recipe,
        epochs=arguments.epochs or recipe.epochs,
        batch_size=arguments.batch_size or recipe.batch_size,
        optimizer=optimizer,
        schedule=SCHEDULES[arguments.schedule] if arguments.schedule else recipe.schedule,
        seed=arguments.seed,
    )
    return arguments.model or model, recipe


def _by_recipe(value: Callable[[str, Recipe], object]) -> str:
    """Return the value for each recipe as text: "default: 3, best: 15"."""
    return ", ".join(f"{name}: {value(*chosen)}" for name, chosen in RECIPES.items())


def _config(arguments: argparse.Namespace, model: str, recipe: Recipe, data: Dataset) -> dict[str, JSON]:
    return {
        "lowered_cnn": __version__,
        "data": str(arguments.data.resolve()) if arguments.data else None,
        "data_kind": kind_of(arguments.data),
        "model": model,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "workers": arguments.workers,
        "seed": arguments.seed,
        "recipe": repr(recipe),
        "training_images": len(data),
        "classes": list(data.classes),
    }


def _train(
    network: Network, data: Dataset, dev: Dataset | None, recipe: Recipe, workers: int, folder: RunFolder
) -> float:
    """Train, with a progress bar on the terminal and a line in `metrics.jsonl` per step; return the seconds."""
    start = time.perf_counter()
    with (
        tqdm(total=recipe.steps(len(data)), unit="step", disable=None, dynamic_ncols=True) as bar,
        folder.open_metrics() as metrics,
        np.errstate(over="ignore", invalid="ignore"),  # a loss that is not finite is reported below
    ):
        for record in train_network(network, data, recipe, dev=dev, workers=workers):
            if not math.isfinite(record.loss):
                raise InputError(
                    f"loss at step {record.step}", "a finite number (try a lower --learning-rate)", record.loss
                )
            metrics.write(json.dumps(dataclasses.asdict(record)) + "\n")
            bar.set_postfix_str(f"epoch {record.epoch}, loss {record.loss:.3f}", refresh=False)
            bar.update()
            if record.ends_epoch:
                accuracy = "" if record.dev_accuracy is None else f", dev accuracy {record.dev_accuracy:.2%}"
                line = (
                    f"epoch {record.epoch} of {recipe.epochs}: loss {record.epoch_loss:.4f}{accuracy}, "
                    f"{record.images_per_second:,.0f} images/s"
                )
                with suppress(OSError):  # training goes on even if the line cannot be written
                    bar.write(line, file=sys.stderr)
    if not np.isfinite(network.parameters.vector).all():
        raise InputError("parameters after the last step", "finite numbers (try a lower --learning-rate)", "nan or inf")
    return time.perf_counter() - start
