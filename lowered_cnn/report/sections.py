"""The sections of the report: each has figures and tables, or says why it has none."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.cores import usable_cores
from lowered_cnn.data.dataset import Indices
from lowered_cnn.layers import Conv2D, Graph, Sequential
from lowered_cnn.layers.container import stages_of
from lowered_cnn.ledger import summary
from lowered_cnn.network import Network
from lowered_cnn.report.charts import by_class, curves, magnitudes, matrix, probabilities
from lowered_cnn.report.figures import Figure, Gallery, Panel
from lowered_cnn.report.markup import Bar, facts, folded, paragraph, preformatted, table
from lowered_cnn.report.pictures import as_pixels, grid, maps
from lowered_cnn.report.saliency import Saliency, saliency
from lowered_cnn.report.scale import Scale
from lowered_cnn.report.subject import Subject
from lowered_cnn.timing import timings
from lowered_cnn.tracing import Trace, trace
from lowered_cnn.training.confusion import NEVER
from lowered_cnn.training.machine import machine

SHOWN = 12
"""Mistakes and hits that are shown."""

LOOKED_INTO, SALIENT = 2, 4
"""Images whose activations and whose saliency are shown."""

MOST_LAYERS = 24
MOST_FILTERS, MOST_CHANNELS = 64, 4
MEASURED = 8
"""Images over which the size of activations and gradients is measured: they take less memory than a step of a shard."""

LISTED = 30
"""Classes in the chart, and pairs in the list of mistakes."""


@dataclass(frozen=True)
class Section:
    """A section with its title, what it tells in HTML, and its figures, whose HTML is part of that."""

    title: str
    html: str
    figures: Sequence[Figure] = ()

    @property
    def anchor(self) -> str:
        """The name that links lead to."""
        return self.title.lower().replace(" ", "-")


def sections(subject: Subject) -> Iterator[Section]:
    """Yield all sections, in the order of the page."""
    yield training(subject)
    yield confusion(subject)
    yield classes(subject)
    yield certain(subject)
    yield filters(subject.network)
    yield from inside(subject)
    yield salient(subject)
    yield costs(subject)
    yield setting(subject)


def training(subject: Subject) -> Section:
    """Show the curves of all steps."""
    if not subject.records:
        return Section("Training", paragraph("The run has no metrics."))
    charts = curves(subject.records)
    body = "".join(chart.html() for chart in charts)
    has_dev = any(record.get("dev_accuracy") is not None for record in subject.records)
    note = "" if has_dev else paragraph("No images were held out, so there is no curve for a dev split.", "note")
    return Section("Training", f'<div class="charts">{body}</div>{note}', charts)


def confusion(subject: Subject) -> Section:
    """Show which class is taken for which."""
    found, chart = subject.confusion, matrix(subject.confusion)
    lead = "Each row is a class, and each column what its images were taken for; right answers are on the diagonal."
    rows = [(found.classes[true], found.classes[answer], f"{n:,}") for true, answer, n in found.mistakes()[:LISTED]]
    listed = folded(f"The {len(rows)} most frequent mistakes", table(("class", "taken for", "images"), rows))
    return Section("Confusion", paragraph(lead) + chart.html() + (listed if rows else ""), [chart])


def classes(subject: Subject) -> Section:
    """Show precision and recall of each class."""
    found, chart = subject.confusion, by_class(subject.confusion, LISTED)
    lead = (
        "Precision is the share of right answers among those that name the class, and recall the share of its images "
        "that are recognized."
    )
    if len(found.classes) > LISTED:
        lead += f" The chart has the {LISTED} classes with the lowest F1, the table all of them."
    header, *rows = found.cells()
    note = "" if found.predicted.all() else paragraph(NEVER, "note")
    return Section(
        "Classes", f'{paragraph(lead)}<div class="charts">{chart.html()}{table(header, rows)}</div>{note}', [chart]
    )


def certain(subject: Subject) -> Section:
    """Show the mistakes that the network is most certain of, and the right answers that it is least certain of."""
    mistakes, hits = subject.mistakes[:SHOWN], subject.hits[:SHOWN]
    parts, figures = [], list[Figure]()
    for title, name, places in (
        (f"The most certain of {len(subject.mistakes):,} mistakes", "mistakes", mistakes),
        ("The least certain right answers", "hits", hits),
    ):
        parts.append(f"<h3>{title}</h3>")
        if not len(places):
            parts.append(paragraph("There are none.", "note"))
        elif subject.has_images:
            gallery = Gallery(name, list(_panels(subject, places)))
            figures.append(gallery)
            parts.append(gallery.html())
        else:
            parts.append(table(("example", "class", "taken for", "probability"), list(_rows(subject, places))))
    if not subject.has_images:
        parts.append(paragraph(f"Inputs of shape {subject.network.input_shape} cannot be shown as images.", "note"))
    return Section("Mistakes", "".join(parts), figures)


def _panels(subject: Subject, places: Indices) -> Iterator[Panel]:
    for place, image in zip(places, subject.images(places), strict=True):
        story = subject.story(place)
        yield Panel(as_pixels(image), story, f"Test image {place}: {story}")


def _rows(subject: Subject, places: Indices) -> Iterator[tuple[str, ...]]:
    for place in places:
        yield f"{place:,}", *subject.names(place), f"{subject.certainty[place]:.1%}"


def filters(network: Network) -> Section:
    """Show the filters of the first 2-D convolution."""
    stages = stages_of(network.lower(1, training=False, fused=False).layers)
    first = next((stage for stage in stages if isinstance(stage.layer, Conv2D)), None)
    if first is None:
        return Section("Filters", paragraph("The network has no 2-D convolution.", "note"))
    name = first.site.name
    weight: Array = first.site.parameter("weight")
    count, channels, *size = weight.shape
    shown = weight[:MOST_FILTERS]
    told = f"{name}: {len(shown)} of {count} filters, {channels} x {' x '.join(map(str, size))}"
    panels = []
    if channels == 3:
        most = float(np.abs(shown).max()) or 1.0
        colours = np.moveaxis(127.5 * (1 + shown / most), 1, -1).round().astype(np.uint8)
        panels.append(Panel(grid(colours), f"{told}, as colours; grey is 0", told))
    else:
        scale = Scale.of(np.concatenate([shown.ravel(), -shown.ravel()]))
        for channel in range(min(channels, MOST_CHANNELS)):
            caption = told if channels == 1 else f"{told}; channel {channel + 1}"
            panels.append(Panel(grid(scale.pixels(shown[:, channel])), caption, caption, scale))
    gallery = Gallery("filters", panels, together=2)
    return Section("Filters", paragraph(f"The weights of the first convolution, {name}.") + gallery.html(), [gallery])


def inside(subject: Subject) -> Iterator[Section]:
    """Show the activations of some images, layer by layer, and their gradients; then how large both are."""
    chosen = np.concatenate([subject.mistakes[: LOOKED_INTO - 1], subject.hits])[:LOOKED_INTO]
    labels = subject.test.targets
    parts, figures = [], list[Figure]()
    lead = (
        "The output of each layer, and beside it the gradient of the loss there: orange where more would raise the "
        f"loss, blue where it would lower it. At most {MOST_LAYERS} layers are shown, and 16 channels of each."
    )
    for number, (place, image) in enumerate(zip(chosen, subject.images(chosen), strict=True), 1):
        traced = trace(subject.network, image[None], labels[[place]])
        title = f"Test image {place}: {subject.story(place)}"
        shares = subject.probabilities[place]
        chart = probabilities(f"probabilities-{number}", subject.test.classes, shares, labels[place])
        gallery = Gallery(f"layers-{number}", list(_layers(traced)), together=2)
        figures += [chart, gallery]
        parts.append(f"<h3>{escape(title)}</h3>{chart.html()}{gallery.html()}")
    yield Section("Inside", paragraph(lead) + "".join(parts), figures)
    some = np.linspace(0, len(labels) - 1, min(MEASURED, len(labels))).astype(np.int64)
    traced = trace(subject.network, subject.images(some), labels[some])
    sizes = [{name: _rms(values) for name, values in each.items()} for each in (traced.activations, traced.gradients)]
    chart = magnitudes(*sizes)
    lead = f"Root mean squares of activations and of their gradients, over {len(some)} test images."
    yield Section("Magnitudes", paragraph(lead) + chart.html(), [chart])


def _rms(values: Array) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _layers(traced: Trace) -> Iterator[Panel]:
    names = list(traced.activations)
    places = np.unique(np.linspace(0, len(names) - 1, min(MOST_LAYERS, len(names))).astype(int))
    for name in (names[place] for place in places):
        activation = traced.activations[name][0]
        shape = " x ".join(map(str, activation.shape))
        yield _map(activation, f"{name}, {shape}", f"Activation of {name}")
        yield _map(traced.gradients[name][0], f"gradient of {name}", f"Gradient of {name}")


def _map(values: Array, caption: str, alt: str) -> Panel:
    shown, scale = maps(values), Scale.of(values)
    return Panel(grid(scale.pixels(shown)), caption, f"{alt}, from {values.min():.2g} to {values.max():.2g}", scale)


def salient(subject: Subject) -> Section:
    """Show which pixels the answers depend on, and how sure that is."""
    if not subject.has_images:
        note = f"Inputs of shape {subject.network.input_shape} cannot be shown as images."
        return Section("Saliency", paragraph(note, "note"))
    half = SALIENT // 2
    places = np.concatenate([subject.mistakes[:half], subject.hits])[:SALIENT]
    panels, rows = list[Panel](), []
    for place, image in zip(places, subject.images(places), strict=True):
        found = saliency(subject.network, image, int(subject.answers[place]))
        strongest = np.take_along_axis(found.gradient, np.abs(found.gradient).argmax(axis=0)[None], axis=0)
        story = subject.story(place)
        panels.append(Panel(as_pixels(image), f"Test image {place}: {story}", f"Test image {place}: {story}"))
        panels.append(_map(strongest, "gradient of the answer's score", f"Saliency of test image {place}"))
        rows += list(_comparisons(f"{place:,}", found))
    lead = (
        "The gradient of the score of the answer with respect to each pixel: brightening orange pixels, or darkening "
        "blue ones, would make the network more certain."
    )
    check = (
        "Is that gradient right? Along random directions of length 1, in float64, it is compared with finite "
        "differences, whose own error has a bound."
    )
    gallery = Gallery("saliency", panels, together=2)
    header = ("test image", "direction", "gradient", "differences", "error", "bound", "holds")
    body = f"{gallery.html()}<h3>Certificate</h3>{paragraph(check)}{table(header, rows)}"
    return Section("Saliency", paragraph(lead) + body, [gallery])


def _comparisons(place: str, found: Saliency) -> Iterator[tuple[str, ...]]:
    for number, each in enumerate(found.comparisons, 1):
        values = f"{each.gradient:.12g}", f"{each.difference:.12g}", f"{each.error:.1e}", f"{each.bound:.1e}"
        yield place, str(number), *values, "yes" if each.holds else "NO"


def costs(subject: Subject) -> Section:
    """Show what each layer costs in a training step, and how long it takes."""
    found = timings(subject.network, subject.shard)
    lead = (
        f"A training step of {found.batch} images on one core, the median of {found.repeats}: the multiplications and "
        f"additions in the products, the time they take, and their share of {found.peak / 1e9:,.0f} GFLOP/s, the speed "
        f"of a large product in {found.dtype} on this machine. Layers that are fused run as one."
    )
    header = ("layer", "kinds", "output", "MFLOP", "forward, ms", "backward, ms", "of the time", "of the peak")
    seconds = sum(row.forward + row.backward for row in found.rows)
    rows = [
        (
            row.name,
            " + ".join(row.kinds),
            " x ".join(map(str, row.output_shape)),
            f"{row.flops / 1e6:,.2f}",
            f"{1e3 * row.forward:,.3f}",
            f"{1e3 * row.backward:,.3f}",
            Bar((row.forward + row.backward) / seconds),
            Bar(row.share) if row.flops else "",
        )
        for row in found.rows
    ]
    both = f"{1e3 * found.forward:,.3f}", f"{1e3 * found.backward:,.3f}"
    total = ("step", "", "", f"{found.flops / 1e6:,.2f}", *both, "", f"{found.share:.1%}")
    products = preformatted(str(summary(subject.network)))
    ledger = folded("The products of a step with one image, layer by layer", products)
    return Section("Costs", f"{paragraph(lead)}{table(header, rows, total)}{ledger}")


def setting(subject: Subject) -> Section:
    """Tell the recipe, the network and the machine."""
    here = {
        "machine": f"{platform.platform()}, {usable_cores()} usable cores",
        "arithmetic": machine(),
        "Python": platform.python_version(),
    }
    layers = folded("The layers of the network", preformatted("\n".join(_told(subject.network.model))))
    return Section("Setting", facts({**subject.settings, **here}.items()) + layers)


def _told(model: Sequential | Graph) -> Iterator[str]:
    if isinstance(model, Graph):
        for node in model.nodes:
            yield f"{node.name}: {node.layer}, of {', '.join(node.inputs)}"
    else:
        for name, layer in zip(model.names, model.layers, strict=True):
            yield f"{name}: {layer}"
