"""Show each equation of a network in the browser, forwards and backwards, on a digit you draw."""

import argparse
import threading
import webbrowser
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from lowered_cnn import InputError, Network, Recipe, Record
from lowered_cnn.cli.arguments import between
from lowered_cnn.cli.predict import prepared
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.cli.stopping import Stopping, exit_code
from lowered_cnn.cores import on_one_core
from lowered_cnn.data import load as load_data
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.live import LiveTraining
from lowered_cnn.explore.page import offline, texts
from lowered_cnn.explore.saved import example_of, saved, some_examples
from lowered_cnn.models import compact
from lowered_cnn.network import image_range
from lowered_cnn.storage import write_whole
from lowered_cnn.training import COMPACT
from lowered_cnn.training.checkpoint import read_state

DEV_SIZE = 5000
"""How many of MNIST's training images are held out when an untrained network is trained on the page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    text = "a folder written by lowered-cnn train (an untrained network, which the page trains on MNIST)"
    parser.add_argument("run", type=Path, metavar="RUN", nargs="?", help=text)
    text = "write the page to one file that needs no server, with these images or some of the test images, and exit"
    parser.add_argument("--save", type=Path, metavar=("PAGE.html", "IMAGE"), nargs="+", help=text)
    text = "the name or address to listen on (%(default)s, which only this machine can reach)"
    parser.add_argument("--host", default="127.0.0.1", help=text)
    parser.add_argument("--port", type=between(0, 65535), help="(8017 or, if that is taken, any free one)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(arguments: argparse.Namespace) -> int:
    """Save the page, or serve it until a signal ends it; return 128 + the signal's number."""
    with on_one_core(), np.errstate(over="ignore", invalid="ignore"):  # one image is too little for more threads
        return _save(arguments) if arguments.save else _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from lowered_cnn.explore.server import listen, serve

    with listen(arguments.host, arguments.port) as listening:
        exploration = _exploration(arguments.run)
        with Stopping() as stopping, closing(exploration.training):
            host, port = listening.getsockname()[:2]
            url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
            exploration.description()  # tests the network now, so that the page need not wait for it
            print(url, flush=True)
            if not arguments.no_browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            serve(exploration, listening, arguments.host, lambda: stopping.signal is not None)
            return exit_code(stopping.signal or 0)


def _save(arguments: argparse.Namespace) -> int:
    if arguments.run is None:
        raise InputError("--save", "a RUN, whose network it shows", "none")
    page, *images = arguments.save
    exploration = _exploration(arguments.run)
    shape = exploration.network.input_shape
    examples = [example_of(exploration, path.name, prepared(path, shape, exploration.is_framed)) for path in images]
    write_whole(page, offline(texts(), saved(exploration, examples or some_examples(exploration))))
    return 0


def _exploration(path: Path | None) -> Exploration:
    return _untrained() if path is None else _trained(RunFolder.open(path))


def _untrained() -> Exploration:
    mnist, recipe = load_data(), COMPACT
    network = Network(compact(), mnist.train.image_shape, seed=recipe.seed)
    network.input_range = image_range(mnist.train.dtype, ())
    data, dev = mnist.train.split(DEV_SIZE, recipe.seed)
    training = LiveTraining(network, data, dev, recipe)
    return Exploration("compact", network, mnist.test, training, is_framed=True, is_fresh=True)


def _trained(folder: RunFolder) -> Exploration:
    network = folder.network()
    splits = load_data(folder.source, network.input_shape)
    if list(splits.test.classes) != folder.classes:
        raise InputError("data: classes", ", ".join(folder.classes), ", ".join(splits.test.classes))
    data, dev, size = splits.train, None, folder.number("dev_size")
    if size:
        data, dev = data.split(size, folder.number("seed"))
    recipe = read_state(folder.checkpoint).subject.recipe if folder.checkpoint.is_file() else Recipe()
    recipe = replace(recipe, frozen=())  # from scratch, nothing is worth keeping
    training = LiveTraining(network, data, dev, recipe, _records(folder))
    is_framed = folder.has_mnist_style and network.input_shape == (1, 28, 28)
    return Exploration(folder.path.resolve().name, network, splits.test, training, is_framed)


def _records(folder: RunFolder) -> list[Record]:
    """Return the records of a run's steps."""
    records: list[Record] = []
    for record in folder.records():
        with suppress(TypeError):  # other fields than ours
            records.append(Record(**record))
    return [record for record in records if type(record.step) is int]
