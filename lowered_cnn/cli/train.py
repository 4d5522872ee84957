"""Train a network on MNIST, or on your own images, and test it; or go on with a training that was stopped."""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from lowered_cnn import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Dataset,
    InputError,
    Network,
    Plateau,
    Recipe,
    RMSprop,
    StepDecay,
    Training,
    __version__,
)
from lowered_cnn import evaluate as evaluate_network
from lowered_cnn.cli.arguments import at_least, positive
from lowered_cnn.cli.errors import expected_errors
from lowered_cnn.cli.origin import Origin
from lowered_cnn.cli.own_model import build, model_name, settings
from lowered_cnn.cli.run_folder import CHECKPOINT, RunFolder, check_out
from lowered_cnn.cli.running import Interval, follow, follow_along, warn
from lowered_cnn.cli.stopping import exit_code
from lowered_cnn.cores import usable_cores
from lowered_cnn.data import is_mnist_style
from lowered_cnn.data import load as load_data
from lowered_cnn.descriptions import JSON
from lowered_cnn.models import MODELS
from lowered_cnn.optimizers import Optimizer
from lowered_cnn.schedules import Schedule
from lowered_cnn.training import ADAPTIVE, BEST, COMPACT, OBJECTS, join_ranks
from lowered_cnn.training.ranks import Ranks
from lowered_cnn.training.workers import POSIX

RECIPES = {
    "default": ("compact", COMPACT),
    "best": ("deep", BEST),
    "objects": ("wide", OBJECTS),
    "adaptive": ("adaptive", ADAPTIVE),
}
"""Each recipe with its network."""
LEAST_STEPS, MOST_EPOCHS = 800, 60
"""The adaptive recipe takes at least that many steps, but for small data no more than that many epochs."""
IMBALANCED = 10
"""Where the largest class has more than that many times the images of the smallest, accuracy alone misleads."""
OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Adam(),
    "adamw": AdamW(),
    "rmsprop": RMSprop(0.001),
}
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(),
    "step": StepDecay(),
    "cosine": Cosine(),
    "one-cycle": COMPACT.schedule,
    "plateau": Plateau(),
}
DEV_PART = 12
"""By default one twelfth of the training set is held out: 5,000 of MNIST's 60,000."""

RESUMABLE = ("resume", "command", "data", "epochs", "workers", "checkpoint_every", "no_report", "json")
"""What may be given with --resume; all else comes from the run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="IDX or .npy files, or one sub-folder of images per class (MNIST)"
    )
    recipes = (
        "default: 99.2 %% of MNIST in four seconds on 2 cores; best: 99.7 %% in about eleven minutes; "
        "objects: for small pictures of things, 94.1 %% of Fashion-MNIST in about sixteen minutes; "
        "adaptive: for images of any other kind, size and scale"
    )
    other = Recipe()
    chosen = (
        f"default, or adaptive for other images; for another network, {other.epochs} epochs of batches of "
        f"{other.batch_size} at {other.optimizer.learning_rate}"
    )
    parser.add_argument("--recipe", choices=RECIPES, help=f"{recipes} ({chosen})")
    text = f"the network: {', '.join(MODELS)}, or one of your own ({_by_recipe(lambda model, _: model)})"
    parser.add_argument("--model", type=model_name, metavar="MODEL|FILE.py:NAME", help=text)
    text = "start from the network of an earlier run or of an ONNX file, with a new head if the classes are others"
    parser.add_argument("--from", type=Path, metavar="RUN|FILE.onnx", help=text)
    text = "do not train the layers or parameters that match, such as 'conv*'; may be given several times"
    parser.add_argument("--freeze", action="append", metavar="PATTERN", help=text)
    epochs, batch_size = _by_recipe(lambda _, recipe: recipe.epochs), _by_recipe(lambda _, recipe: recipe.batch_size)
    parser.add_argument("--epochs", type=at_least(1), help=f"({epochs})")
    parser.add_argument("--batch-size", type=at_least(1), help=f"({batch_size})")
    parser.add_argument("--optimizer", choices=("sgd", *OPTIMIZERS), help="(sgd)")
    rates = _by_recipe(lambda _, recipe: recipe.optimizer.learning_rate)
    parser.add_argument("--learning-rate", type=positive(), help=f"its peak (sgd: {rates}; the others: 0.001)")
    parser.add_argument("--schedule", choices=SCHEDULES, help="(one-cycle)")
    text = "stop when the dev accuracy has not improved in that many epochs, and keep the best weights (never)"
    parser.add_argument("--patience", type=at_least(1), metavar="EPOCHS", help=text)
    parser.add_argument("--dev-size", type=at_least(0), help="training images held out (one in 12)")
    parser.add_argument("--workers", type=at_least(1), help="processes (one per usable core; on Windows, one)")
    parser.add_argument("--seed", type=at_least(0), help=f"({COMPACT.seed})")
    parser.add_argument("--out", type=Path, metavar="RUN", help="the folder to write (runs/1, runs/2, ...)")
    text = "how often to save what a training goes on from, in steps or seconds (once a minute, and after each epoch)"
    parser.add_argument("--checkpoint-every", type=interval, metavar="STEPS|30s", help=text)
    text = "go on with a run that was stopped; more --epochs than before extend it"
    parser.add_argument("--resume", type=Path, metavar="RUN", help=text)
    text = "check first that all forms of this network agree, which takes seconds; exit with 1 if they do not"
    parser.add_argument("--verify", action="store_true", default=None, help=text)
    text = "do not write RUN/report.html, which is written at the end where the extra report is installed"
    parser.add_argument("--no-report", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last")


def interval(text: str) -> Interval:
    """Return the value of --checkpoint-every: steps, or seconds such as 30s."""
    try:
        if text.endswith("s"):
            return Interval(seconds=positive()(text[:-1]))
        return Interval(steps=at_least(1)(text))
    except argparse.ArgumentTypeError as error:
        wanted = "a number of steps, or of seconds such as 30s"
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}") from error


def run(arguments: argparse.Namespace) -> int:
    """Start or resume a training, and take it to its end: test, save, report.

    Return 1 if the network was to be verified, and does not pass, and 128 + N if signal N stopped it. Of the ranks of
    an MPI job, all train, and rank 0 alone writes.
    """
    ranks = join_ranks()
    with ranks.ending(), expected_errors():
        return _resume(arguments, ranks) if arguments.resume else _start(arguments, ranks)


def _start(arguments: argparse.Namespace, ranks: Ranks) -> int:
    begun = time.perf_counter()
    if arguments.out and ranks.number == 0:
        check_out(arguments.out)
    origin = _origin(arguments)
    splits = load_data(arguments.data, origin.network.input_shape if origin else None)
    seed = COMPACT.seed if arguments.seed is None else arguments.seed
    dev_size = len(splits.train) // DEV_PART if arguments.dev_size is None else arguments.dev_size
    data, dev = _hold_out(splits.train, dev_size, seed)
    model, recipe = _chosen(arguments, data, seed)
    if origin is not None:
        network, changes = origin.network_for(data, seed)
        described = origin.settings
    else:
        network = Network(build(model, len(data.classes), data.image_shape), data.image_shape, seed=seed)
        described, changes = settings(model, network.model), []
    if arguments.verify and not _verified(network, recipe, ranks):
        return 1
    workers = arguments.workers or (usable_cores() if POSIX else 1)
    training = Training(network, data, recipe, dev=dev, workers=workers, engine=ranks)
    ranks.agree("train: data", training.subject.data)  # before there is a folder that would have to be removed
    if ranks.number:
        return _follow_along(training)
    folder = RunFolder.make(arguments.out)
    with folder.locked():
        check_out(folder.path)  # another training may have begun and ended there since
        try:
            training.save(folder.checkpoint)
            folder.write_config(_config(arguments.data, described, dev_size, training))
            for line in changes:
                warn(line)
            _warn_of_imbalance(data)
            return _complete(training, splits.test, folder, arguments, begun)
        except BaseException:
            if not training.step:
                folder.remove()
            raise


def _origin(arguments: argparse.Namespace) -> Origin | None:
    path = getattr(arguments, "from")
    if path is not None and arguments.model is not None:
        raise InputError("--model", f"nothing with --from, which takes it from {path}", arguments.model)
    return None if path is None else Origin.of(path)


def _verified(network: Network, recipe: Recipe, ranks: Ranks) -> bool:
    """Return whether the network passes on all ranks; if not, rank 0 prints the first certificate that fails."""
    from lowered_cnn.verify import verify_forms

    certificate = verify_forms(network, loss=recipe.loss)
    failed = [text for text in ranks.gather("" if certificate.passed else str(certificate)) if text]
    if failed and ranks.number == 0:
        print(failed[0], file=sys.stderr)
    return not failed


def _resume(arguments: argparse.Namespace, ranks: Ranks) -> int:
    begun = time.perf_counter()
    for name, value in vars(arguments).items():
        if name not in RESUMABLE and value is not None:
            wanted = f"nothing with --resume, which takes it from {arguments.resume}"
            raise InputError(f"--{name.replace('_', '-')}", wanted, value)
    folder = RunFolder.open(arguments.resume, CHECKPOINT)
    with nullcontext() if ranks.number else folder.locked():
        folder.import_model()
        source = arguments.data or folder.source
        splits = load_data(source, folder.input_shape)
        data, dev = _hold_out(splits.train, folder.number("dev_size"), folder.number("seed"))
        workers, epochs = arguments.workers or folder.number("workers"), arguments.epochs
        training = Training.resume(folder.checkpoint, data, dev=dev, workers=workers, engine=ranks, epochs=epochs)
        if ranks.number:
            return _follow_along(training)
        if training.finished:
            end = "finished" if training.step == training.steps else "lost patience"
            warn(f"{folder.path} {end} with epoch {training.epoch} of {folder.number('epochs')}; it is tested again")
        elif training.recipe.epochs != folder.number("epochs"):
            rate = f"{training.recipe.schedule!r} goes on at {training.learning_rate:g}"
            warn(f"{training.recipe.epochs} epochs instead of {folder.number('epochs')}: {rate}, and spans them all")
            training.save(folder.checkpoint)
            folder.write_config({**folder.config, **_described(training.recipe)})
        if arguments.data:
            folder.write_config({**folder.config, "data": str(arguments.data.resolve())})
        return _complete(training, splits.test, folder, arguments, begun)


def _follow_along(training: Training) -> int:
    stopped = follow_along(training)
    return 0 if stopped is None else exit_code(stopped)


def _complete(training: Training, test: Dataset, folder: RunFolder, arguments: argparse.Namespace, begun: float) -> int:
    """Take the steps that are left, then save, test and report; return the exit code. The run began at time `begun`."""
    start, first = time.perf_counter(), training.step
    stopped = follow(training, folder, arguments.checkpoint_every)
    train_seconds = time.perf_counter() - start
    if stopped is not None:
        warn(f"stopped by {stopped.name} after step {training.step}; go on with --resume {folder.path}")
        return exit_code(stopped)
    folder.save(training.network)
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is reported below
        tested = evaluate_network(training.network, test, training.recipe.loss, workers=arguments.workers)
    if not math.isfinite(tested.loss):
        raise InputError("test loss", "a finite number (try a lower --learning-rate)", tested.loss)
    images = len(training.data) * training.recipe.epochs * (training.step - first) / training.steps
    result = {
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "epochs": training.epoch,
        "train_seconds": train_seconds,
        "total_seconds": time.perf_counter() - begun,
        "images_per_second": images / train_seconds,
        "workers": training.workers,
        "seed": training.recipe.seed,
        "run": str(folder.path),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"test accuracy {tested.accuracy:.2%}, loss {tested.loss:.4f}; "
            f"trained in {train_seconds:.1f} s, {result['total_seconds']:.1f} s in all; saved in {folder.path}"
        )
    if not arguments.no_report:
        from lowered_cnn.cli.report import write_report

        sys.stdout.flush()  # nobody should wait for the result
        write_report(folder, training.network, test)
    return 0


def _hold_out(data: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset | None]:
    return data.split(count, seed) if count else (data, None)


def _warn_of_imbalance(data: Dataset) -> None:
    """Warn of classes so much smaller than others that a network may ignore them and still look accurate."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    least, most = counts.argmin(), counts.argmax()
    if counts[most] > IMBALANCED * counts[least]:
        smallest, largest = (f"{counts[k]:,} images of {data.classes[k]}" for k in (least, most))
        warn(f"{smallest} and {largest}: look at each class, as the accuracy says little about the smallest")


def _chosen(arguments: argparse.Namespace, data: Dataset, seed: int) -> tuple[str, Recipe]:
    """Return the chosen network and recipe, with the options applied."""
    name = arguments.recipe or ("default" if is_mnist_style(data) else "adaptive")
    model, recipe = RECIPES[name]
    if name == "default" and arguments.recipe is None and _has_another_network(arguments):
        recipe = Recipe()  # without normalization, the rate of the default recipe may be too high
    if name == "adaptive":
        recipe = recipe.at_least(LEAST_STEPS, MOST_EPOCHS, len(data))
    optimizer = OPTIMIZERS.get(arguments.optimizer, recipe.optimizer)
    if arguments.learning_rate is not None:
        assert isinstance(optimizer, SGD | Adam | AdamW | RMSprop)
        optimizer = dataclasses.replace(optimizer, learning_rate=arguments.learning_rate)
    recipe = dataclasses.replace(
        recipe,
        epochs=arguments.epochs or recipe.epochs,
        batch_size=arguments.batch_size or recipe.batch_size,
        optimizer=optimizer,
        schedule=SCHEDULES[arguments.schedule] if arguments.schedule else recipe.schedule,
        patience=arguments.patience,
        seed=seed,
        frozen=tuple(arguments.freeze or ()),
    )
    return arguments.model or model, recipe


def _has_another_network(arguments: argparse.Namespace) -> bool:
    return arguments.model not in (None, "compact") or getattr(arguments, "from") is not None


def _by_recipe(value: Callable[[str, Recipe], object]) -> str:
    """Return the value for each recipe as text: "default: 3, best: 15"."""
    return ", ".join(f"{name}: {value(*chosen)}" for name, chosen in RECIPES.items())


def _config(source: Path | None, described: dict[str, JSON], dev_size: int, training: Training) -> dict[str, JSON]:
    return {
        "lowered_cnn": __version__,
        "data": str(source.resolve()) if source else None,
        "mnist_style": is_mnist_style(training.data),
        "dev_size": dev_size,
        **described,
        "input_shape": list(training.network.input_shape),
        "workers": training.workers,
        "seed": training.recipe.seed,
        "training_images": len(training.data),
        "classes": list(training.data.classes),
        **_described(training.recipe),
    }


def _described(recipe: Recipe) -> dict[str, JSON]:
    return {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "recipe": repr(recipe)}
