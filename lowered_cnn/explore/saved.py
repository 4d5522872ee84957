"""What a saved page shows: a network, and some examples with all that the server would have answered about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Images
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.payload import packed
from lowered_cnn.explore.traced import gradients


@dataclass(frozen=True)
class Example:
    """An image with the label that its loss is for; `number` is its place among the test images, if it is one."""

    name: str
    label: int
    image: Images
    number: int | None = None


def some_examples(exploration: Exploration) -> list[Example]:
    """Return the test image that is hardest among those classified correctly, the first one, and a mistake."""
    tested = exploration.training.snapshots.at(None).tested(exploration.test)
    numbers = [tested.hardest, 0, *(mistake.number for mistake in tested.mistakes[:1])]
    return [_test_image(exploration, number) for number in dict.fromkeys(numbers)]


def example_of(exploration: Exploration, name: str, image: Images) -> Example:
    """Return an image labelled with the class that the network finds most likely."""
    return Example(name, int(exploration.probabilities(image).argmax()), image)


def saved(exploration: Exploration, examples: Sequence[Example]) -> dict[str, JSON]:
    """Return what the page shows of these examples without a server."""
    return {
        "network": {**exploration.description(), "saved": True, "autostart": False},
        "examples": [_described(example) for example in examples],
        "traces": [exploration.trace(example.image, example.label) for example in examples],
        "nudges": [list(_nudges(exploration, example)) for example in examples],
        "ledger": exploration.ledger(),
        "training": exploration.training.overview(),
    }


def _test_image(exploration: Exploration, number: int) -> Example:
    label = int(exploration.test.labels[number])
    return Example(f"test image {number}", label, exploration.test_image(number), number)


def _described(example: Example) -> dict[str, JSON]:
    number: dict[str, JSON] = {} if example.number is None else {"number": example.number}
    return {"name": example.name, **number, "label": example.label, "image": packed(example.image)}


def _nudges(exploration: Exploration, example: Example) -> Iterator[JSON]:
    """Yield nudges of two numbers of each parameter: that with the largest gradient, and one with the median of all.

    Numbers without a gradient, as behind a ReLU that is off, do not count.
    """
    for name, gradient in gradients(exploration.network, example.image, example.label).items():
        sizes = np.abs(gradient.reshape(-1))
        order = np.argsort(sizes, kind="stable")[np.count_nonzero(sizes == 0) :].tolist()
        for index in dict.fromkeys([order[-1], order[len(order) // 2]] if order else [0]):
            yield exploration.nudge(example.image, example.label, name, index)
