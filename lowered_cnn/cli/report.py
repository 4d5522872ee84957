"""Write a report of a training: curves, mistakes, a look inside the network, and what it costs, as one HTML file."""

import argparse
import math
from contextlib import suppress
from pathlib import Path

import numpy as np

from lowered_cnn import InputError, Network, Recipe
from lowered_cnn.cli.evaluate import test_images
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.cli.running import warn
from lowered_cnn.data import Dataset
from lowered_cnn.report import Report, Subject, is_installed, report
from lowered_cnn.report.charts import Records

REPORT = "report.html"

TOLD = ("recipe", "model", "training_images", "dev_size", "workers", "lowered_cnn")
"""The settings of a run that are told, besides its data."""

DRAWN = ("step", "loss", "train_accuracy", "learning_rate")
"""The numbers of a step that the curves need."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder written by lowered-cnn train")
    parser.add_argument("--data", type=Path, metavar="DIR", help="another data set (the one it was trained on)")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help=f"the file to write (RUN/{REPORT})")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write each figure as a PNG file, too")


def run(arguments: argparse.Namespace) -> None:
    """Load the network and the data, and write the page."""
    folder = RunFolder.open(arguments.run)
    network = folder.network()
    path = arguments.out or folder.path / REPORT
    with np.errstate(over="ignore", invalid="ignore"):  # a network whose numbers are not finite is shown as it is
        found = report_of(folder, network, test_images(folder, network, arguments.data))
        found.save(path)
        if arguments.png:
            found.save_figures(arguments.png)
    print(f"{path}: {len(found.figures)} figures" + f", also in {arguments.png}" * bool(arguments.png))


def write_report(folder: RunFolder, network: Network, test: Dataset) -> None:
    """Write the report of a training that has ended, if the extra is installed; if that fails, the training did not."""
    if not is_installed():
        return
    path = folder.path / REPORT
    try:
        report_of(folder, network, test).save(path)
    except Exception as error:  # whatever it is, the network is trained, tested and saved
        got = error if isinstance(error, InputError) else f"{error} ({type(error).__name__})"
        warn(f"no report: {got}".replace("\n", " "))
    else:
        warn(f"the report is in {path}")


def report_of(folder: RunFolder, network: Network, test: Dataset) -> Report:
    """Return the report of a run."""
    told = {"data": str(folder.source or "MNIST"), **{name: str(folder.config.get(name)) for name in TOLD}}
    shard = Recipe(batch_size=folder.number("batch_size")).largest_shard
    return report(Subject(f"Report on {folder.path}", network, test, metrics(folder), told, shard))


def metrics(folder: RunFolder) -> Records:
    """Return the lines of `metrics.jsonl`, one for each step, without those that lack what is drawn."""
    records = {}
    for record in folder.records():
        with suppress(TypeError, LookupError):
            if all(math.isfinite(record[name]) for name in DRAWN):
                records[record["step"]] = record
    return [records[step] for step in sorted(records)]
