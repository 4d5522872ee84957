"""The charts: curves of the training, the confusion of classes, probabilities, and how large gradients are."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.report.figures import Chart, drawing
from lowered_cnn.report.scale import CIVIDIS
from lowered_cnn.report.style import LIGHT
from lowered_cnn.training import Confusion

Records: TypeAlias = Sequence[Mapping[str, Any]]
"""The lines of metrics.jsonl, one per step, in order."""

Numbers: TypeAlias = npt.NDArray[np.float64]

POINTS = 400
"""A curve has at most twice this many points."""

SMOOTHED = 50
"""A smoothed curve shows means over one fiftieth of all steps."""

WIDTH, HEIGHT = 380, 250

LETTER = 7
"""The width of a letter beside an axis."""

DECADE = 10
"""An axis is logarithmic if the largest number is more than this many times the smallest."""

COUNTED, NAMED = 20, 120
"""The confusion of up to this many classes has numbers in its cells, and names beside them."""

LIKELIEST = 10
"""Classes whose probabilities are shown."""

LONGEST = 18
"""Letters of a name beside an axis."""


def curves(records: Records) -> list[Chart]:
    """Return the loss, the accuracies and the learning rate of each step."""
    steps, ends = _column(records, "step"), [record for record in records if record.get("dev_accuracy") is not None]
    loss, accuracy, rate = (_column(records, name) for name in ("loss", "train_accuracy", "learning_rate"))
    charts = []
    with drawing(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot(title="Loss", xlabel="step")
        span = _span(loss)
        if span > 1:
            axes.plot(*_thinned(steps, loss), color=LIGHT["wash"], linewidth=1, label="each step")
        axes.plot(*_thinned(steps, _smoothed(loss)), _style(steps), color=LIGHT["blue"], label=_means(span))
        _scaled(axes, loss)
        figure.legend(loc="outside lower center", ncols=2)
    last = f"from {loss[0]:.3g} in the first step to {_smoothed(loss)[-1]:.3g} in the last ones"
    charts.append(Chart("loss", figure, f"Loss in {len(steps):,} steps, {last}"))
    with drawing(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot(title="Accuracy", xlabel="step")
        smoothed = _smoothed(accuracy)
        name = f"training, {_means(_span(accuracy))}"
        axes.plot(*_thinned(steps, smoothed), _style(steps), color=LIGHT["blue"], label=name)
        dev = _column(ends, "dev_accuracy")
        if len(dev):
            axes.plot(_column(ends, "step"), dev, "o-", color=LIGHT["orange"], label="dev, after each epoch")
        axes.set_ylim(max(0.0, np.concatenate([dev, smoothed[len(smoothed) // 10 :]]).min() - 0.05), 1.01)
        axes.yaxis.set_major_formatter(_percent)
        figure.legend(loc="outside lower center", ncols=2)
    told = f", {dev[-1]:.2%} on the dev split" if len(dev) else ""
    charts.append(Chart("accuracy", figure, f"Accuracy: {smoothed[-1]:.2%} in training{told} at the end"))
    with drawing(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot(title="Learning rate", xlabel="step")
        axes.plot(*_thinned(steps, rate), _style(steps), color=LIGHT["blue"])
        axes.set_ylim(bottom=0)
    charts.append(Chart("learning-rate", figure, f"Learning rate, at most {rate.max():.3g}, {rate[-1]:.3g} last"))
    return charts


def _percent(value: float, place: float) -> str:
    return f"{100 * value:.3g} %"


def _column(records: Records, name: str) -> Numbers:
    return np.array([record.get(name) for record in records], np.float64)


def _style(steps: Numbers) -> str:
    return "o-" if len(steps) == 1 else "-"


def _means(span: int) -> str:
    return "each step" if span == 1 else f"mean of {span:,} steps"


def _scaled(axes: Any, values: Numbers) -> None:
    """Give the numbers a logarithmic axis if they need one; it has no place for 0."""
    above = values[values > 0]
    if above.size and above.max() > DECADE * above.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")


def _span(values: Numbers) -> int:
    return max(1, len(values) // SMOOTHED)


def _smoothed(values: Numbers) -> Numbers:
    """Return the mean of each value and those before it that are within the span."""
    total, width = np.cumsum(values), _span(values)
    before = np.concatenate([np.zeros(width), total[:-width]])
    mean: Numbers = (total - before) / np.minimum(np.arange(1, len(values) + 1), width)
    return mean


def _thinned(steps: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Return a curve that looks the same, with few points: in each run of steps, the lowest and the highest value."""
    run = -(-len(values) // POINTS)
    if run <= 2:
        return steps, values
    runs = np.array_split(np.arange(len(values)), POINTS)
    kept = sorted({place for part in runs for place in (part[values[part].argmin()], part[values[part].argmax()])})
    return steps[kept], values[kept]


def matrix(confusion: Confusion) -> Chart:
    """Return the confusion as a matrix: each row is a class, each column what it was taken for."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    count, names = len(confusion.classes), [_shortened(name) for name in confusion.classes]
    cell = 38 if count <= COUNTED else max(12, 240 // count) if count <= NAMED else 1400 / count
    margin = LETTER * max(map(len, names)) if count <= NAMED else 40
    side = max(240, cell * count)
    shares = confusion.counts / np.maximum(confusion.support, 1)[:, None]
    with drawing(side + margin + 110, side + margin + 10) as figure:
        axes = figure.add_subplot(xlabel="taken for", ylabel="class")
        colours = LinearSegmentedColormap.from_list("cividis", CIVIDIS.split())
        image = axes.imshow(shares, colours, norm=PowerNorm(0.4, 0, 1), interpolation="none")
        axes.grid(False)
        if count <= NAMED:
            axes.set_xticks(range(count), names, rotation=90 if LETTER * max(map(len, names)) > cell else 0)
            axes.set_yticks(range(count), names)
        for true, answer in np.argwhere(confusion.counts) if count <= COUNTED else ():
            dark = shares[true, answer] < 0.25
            number = confusion.counts[true, answer]
            axes.text(answer, true, number, ha="center", va="center", size=9, color="#fefefe" if dark else "#101010")
        bar = figure.colorbar(image, ax=axes, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1], format=_percent, shrink=0.8)
        bar.set_label("share of the class")
        bar.outline.set_visible(False)
    alt = f"Confusion of {count} classes: {confusion.accuracy:.2%} of all images are on the diagonal"
    return Chart("confusion", figure, alt)


def by_class(confusion: Confusion, most: int) -> Chart:
    """Return precision and recall of each class, at most of the `most` with the lowest F1."""
    worst = np.argsort(np.nan_to_num(confusion.f1), kind="stable")[:most]
    shown = np.sort(worst)[::-1]
    with drawing(1.25 * WIDTH, 60 + 18 * len(shown)) as figure:
        axes = figure.add_subplot()
        for place, number in enumerate(shown):
            pair = confusion.precision[number], confusion.recall[number]
            axes.plot(pair, (place, place), color=LIGHT["line"], linewidth=3)
        for shares, name, mark, colour in (
            (confusion.precision, "precision", "o", "blue"),
            (confusion.recall, "recall", "D", "orange"),
        ):
            axes.plot(shares[shown], np.arange(len(shown)), mark, markersize=5, color=LIGHT[colour], label=name)
        axes.set_yticks(range(len(shown)), [_shortened(confusion.classes[number]) for number in shown])
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.xaxis.set_major_formatter(_percent)
        figure.legend(loc="outside upper left", ncols=2)
    return Chart("classes", figure, f"Precision and recall of {len(shown)} classes; the table has the numbers")


def probabilities(name: str, classes: Sequence[str], shares: Numbers, true: int) -> Chart:
    """Return the probabilities of the likeliest classes as bars; that of the true class is orange."""
    order = np.argsort(-shares, kind="stable")[:LIKELIEST]
    shown = (np.sort(order) if len(shares) <= LIKELIEST else order)[::-1]
    with drawing(WIDTH, 50 + 18 * len(shown)) as figure:
        axes = figure.add_subplot(title="Probabilities")
        colours = [LIGHT["orange"] if number == true else LIGHT["blue"] for number in shown]
        bars = axes.barh(range(len(shown)), shares[shown], color=colours, height=0.7)
        axes.bar_label(bars, [f"{share:.1%}" for share in shares[shown]], padding=3, color=LIGHT["muted"], fontsize=9)
        axes.set_yticks(range(len(shown)), [_shortened(classes[number]) for number in shown])
        axes.set_xlim(0, 1.18)
        axes.set_xticks([])
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
    told = ", ".join(f"{classes[number]} {shares[number]:.1%}" for number in order[:3])
    return Chart(name, figure, f"Probabilities: {told}")


def magnitudes(activations: Mapping[str, float], gradients: Mapping[str, float]) -> Chart:
    """Return the root mean squares of what comes out of each layer and of its gradient."""
    names = list(activations)
    with drawing(max(1.25 * WIDTH, 80 + 20 * len(names)), 280) as figure:
        axes = figure.add_subplot()
        for sizes, label, mark, colour in (
            (activations, "activation", "o-", "blue"),
            (gradients, "gradient", "D-", "orange"),
        ):
            values = [sizes.get(name) or np.nan for name in names]  # a logarithm has no place for 0
            axes.plot(range(len(names)), values, mark, markersize=5, color=LIGHT[colour], label=label)
        _scaled(axes, np.array([*activations.values(), *gradients.values()]))
        axes.set_xticks(range(len(names)), [_shortened(name) for name in names], rotation=90)
        figure.legend(loc="outside upper left", ncols=2)
    first, last = (gradients.get(name, 0.0) for name in (names[0], names[-1]))
    alt = f"Gradients have a root mean square of {last:.2g} after the last layer, and of {first:.2g} in the images"
    return Chart("magnitudes", figure, alt)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
