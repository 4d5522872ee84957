"""Draw the figures of the documents from the numbers that the pages' own code computes: `python scripts/figures.py`."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from drawing import CELL, MARGIN, MINUS, TITLE, Box, Drawing, Numbers, number
from lowered_cnn import (
    Conv2D,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Recipe,
    ReLU,
    Window,
    col2im,
    im2col,
    load_mnist,
    trace,
    train,
)

BOOK = Path(__file__).parents[1] / "docs" / "book"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
TOP = MARGIN + TITLE
GAP = 28

Page = dict[str, Any]
"""What the code of a page has defined, by name."""


def run_page(name: str) -> Page:
    """Run the Python blocks of a page of the book, and return what they define."""
    code = re.findall(r"^```python\n(.*?)^```$", (BOOK / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL)
    page: Page = {}
    with redirect_stdout(io.StringIO()):
        exec("\n".join(code), page)
    return page


def terms(weights: Numbers, values: Numbers) -> str:
    """Return a sum of products in words, without those with a weight of 0."""
    return added(
        [f"{number(w)}·{number(v) if v >= 0 else f'({number(v)})'}" for w, v in zip(weights, values, strict=True) if w]
    )


def added(words: Sequence[str]) -> str:
    """Join the terms of a sum, and subtract those that begin with a minus sign."""
    return " + ".join(words).replace(f"+ {MINUS}", f"{MINUS} ")


def s1(page: Page) -> Drawing:
    drawing = Drawing(
        "A convolution as a matrix product",
        "im2col writes what lies under the filter at each position of the image into a column. The filters, as rows, "
        "times the columns, plus the biases, are the output maps.",
    )
    weight = page["weight"].reshape(2, 4)
    image = drawing.matrix(MARGIN, TOP, page["x"][0, ..., 0], "image X", bracket=False)
    columns = drawing.matrix(252, TOP, page["columns"], "columns", "one for each position")
    drawing.arrow((image.right + 8, image.middle), (columns.x - 14, image.middle), label="im2col")
    below = columns.bottom + TITLE + GAP
    filters = drawing.matrix(MARGIN, below, weight, "W", "a filter in each row")
    bias = drawing.matrix(186, below, page["bias"][:, None], "b")
    z = drawing.matrix(columns.x, below, page["z"], "Z = W columns + b")
    drawing.sign(filters.right + 18, z.middle, "+")
    drawing.sign(bias.right + 17, z.middle, "=")
    maps = output_maps(drawing, z.right + 70, below, page["z"].reshape(2, 2, 2), "map")
    drawing.arrow((z.right + 12, z.middle), (maps[0].x - 8, z.middle), label="reshape")
    drawing.mark(image, (1, 3), (1, 3))
    drawing.mark(columns, (0, 4), (3, 4))
    drawing.mark(filters, (1, 2), (0, 4))
    drawing.mark(z, (1, 2), (3, 4))
    drawing.mark(maps[1], (1, 2), (1, 2))
    total = terms(weight[1], page["columns"][:, 3])
    told(drawing, f"filter 2 at (1, 1): {total} + {number(page['bias'][1])} = {number(page['z'][1, 3])}")
    return drawing


def s2(page: Page) -> Drawing:
    drawing = Drawing(
        "The gradient of the filters as a matrix product",
        "The columns of the image, transposed, have a column for each tap of the filter: what the tap has seen, one "
        "position after the other. dZ times this matrix is the gradient of the filters.",
    )
    dz, columns = page["dz"], page["columns"].T
    image = drawing.matrix(MARGIN, TOP, page["x"][0, ..., 0], "image X", bracket=False)
    seen = drawing.matrix(252, TOP, columns, "columnsᵀ", "what each tap has seen")
    drawing.arrow((image.right + 8, image.middle), (seen.x - 14, image.middle), label="im2col, transposed")
    below = seen.bottom + TITLE + GAP
    given = drawing.matrix(MARGIN, below, dz, "dZ", "a filter in each row")
    dweight = drawing.matrix(seen.x, below, page["dweight"], "dW = dZ columnsᵀ")
    drawing.sign((given.right + dweight.x) / 2, given.middle, "=")
    maps = output_maps(drawing, dweight.right + 70, below, page["dweight"].reshape(2, 2, 2), "dW")
    drawing.arrow((dweight.right + 12, given.middle), (maps[0].x - 8, given.middle), label="reshape")
    drawing.mark(image, (0, 2), (0, 2))
    drawing.mark(seen, (0, 4), (0, 1))
    drawing.mark(given, (0, 1), (0, 4))
    for box in (dweight, maps[0]):
        drawing.mark(box, (0, 1), (0, 1))
    told(drawing, f"filter 1, tap (0, 0): {terms(dz[0], columns[:, 0])} = {number(page['dweight'][0, 0])}")
    return drawing


def s3(page: Page) -> Drawing:
    drawing = Drawing(
        "The gradient of the biases as a matrix product",
        "dZ, with a row for each filter, times a column of ones is the sum over all positions, the gradient of the "
        "biases.",
    )
    dz = page["dz"]
    maps = output_maps(drawing, MARGIN, TOP, dz.reshape(2, 2, 2), "dZ")
    ones = drawing.matrix(252, TOP, np.ones((4, 1)), "ones")
    below = ones.bottom + TITLE + GAP
    given = drawing.matrix(MARGIN, below, dz, "dZ", "a filter in each row")
    middle = maps[0].right + 8
    drawing.arrow((middle, maps[0].bottom + 8), (middle, given.y - TITLE - 8), label="reshape")
    dbias = drawing.matrix(ones.x, below, (dz @ np.ones(4))[:, None], "db = dZ ones")
    drawing.sign((given.right + dbias.x) / 2, given.middle, "=")
    drawing.mark(maps[0], (0, 2), (0, 2))
    drawing.mark(given, (0, 1), (0, 4))
    drawing.mark(ones, (0, 4), (0, 1))
    drawing.mark(dbias, (0, 1), (0, 1))
    told(drawing, f"filter 1: {added([*map(number, dz[0])])} = {number(dz[0].sum())}")
    return drawing


def s4(page: Page) -> Drawing:
    drawing = Drawing(
        "The gradient of the input: a matrix product, then col2im",
        "The transposed filters times dZ give a column for each position. col2im puts each column back where im2col "
        "read it, and adds up where the windows overlap.",
    )
    sweep, dcolumns = page["sweep"], page["dcolumns"]

    def back(columns: Numbers) -> Numbers:
        image: Numbers = col2im(columns.reshape(1, 2, 2, 2, 2, 1), sweep)[0, ..., 0]
        return image

    maps = output_maps(drawing, MARGIN, TOP, page["dz"].reshape(2, 2, 2), "dZ")
    dz = drawing.matrix(252, TOP, page["dz"], "dZ", "a filter in each row")
    drawing.arrow((maps[1].right + 8, dz.middle), (dz.x - 14, dz.middle), label="reshape")
    below = dz.bottom + TITLE + GAP
    filters = drawing.matrix(104, below, page["weight"].reshape(2, 4).T, "Wᵀ", "a filter in each column")
    product = drawing.matrix(dz.x, below, dcolumns, "dcolumns = Wᵀ dZ")
    drawing.sign((filters.right + product.x) / 2, product.middle, "=")
    counts = drawing.matrix(488, TOP, back(np.ones((4, 4))), "overlaps", "windows over each number", bracket=False)
    bottom, step, largest = product.bottom + TITLE + GAP, 3 * CELL + 26, np.abs(dcolumns).max()
    for position in range(4):
        only = np.zeros((4, 4))
        only[:, position] = 1
        put = np.where(back(only) > 0, back(dcolumns * only), np.nan)
        x = MARGIN + position * step
        window = drawing.matrix(x, bottom, put, f"at ({position // 2}, {position % 2})", bracket=False, darkest=largest)
        drawing.mark(window, (1, 2), (1, 2))
        drawing.mark(product, (3 - position, 4 - position), (position, position + 1))
        drawing.sign(window.right + 13, window.middle, "+" if position < 3 else "=")
    dx = drawing.matrix(MARGIN + 4 * step, bottom, page["dx"][0, ..., 0], "dX", bracket=False, darkest=largest)
    turn = product.right + 30
    drawing.arrow((product.right + 12, product.middle), (turn, product.middle), (turn, bottom - TITLE + 2))
    drawing.text(turn + 10, product.middle + 24, "col2im: back to each window")
    for box in (dx, counts):
        drawing.mark(box, (1, 2), (1, 2))
    shares = [number(dcolumns[3 - position, position]) for position in range(4)]
    told(
        drawing,
        f"the middle, under a different tap at each position: {added(shares)} = {number(page['dx'][0, 1, 1, 0])}",
    )
    return drawing


def s4_second(page: Page) -> Drawing:
    drawing = Drawing(
        "The gradient of the input as a convolution",
        "dZ with a border of zeros, convolved with the filters rotated by 180 degrees, is the same gradient.",
    )
    padded = np.pad(page["dz"].reshape(2, 2, 2), [(0, 0), (1, 1), (1, 1)])
    maps = output_maps(drawing, MARGIN, TOP, padded, "dZ", note="with a border")
    filters = output_maps(drawing, 336, TOP, page["flipped"][0], "filter", note="rotated")
    drawing.sign(318, filters[0].middle, "*")
    dx = drawing.matrix(526, TOP, page["dx"][0, ..., 0], "dX", bracket=False)
    drawing.sign(503, filters[0].middle, "=")
    for box, turned in zip(maps, filters, strict=True):
        drawing.mark(box, (1, 3), (1, 3))
        drawing.mark(turned, (0, 2), (0, 2))
    drawing.mark(dx, (1, 2), (1, 2))
    products = terms(page["flipped"].ravel(), page["dz"].ravel())
    told(drawing, f"the middle of X: {products} = {number(page['dx'][0, 1, 1, 0])}")
    return drawing


def s5(page: Page) -> Drawing:
    drawing = Drawing(
        "ReLU and its mask",
        "The forward pass takes the maximum with 0. Where the result is above 0, the gradient passes.",
    )
    y = page["lowered"].forward(page["x"]).copy()
    dx = page["lowered"].backward(page["dy"].copy())
    below = TOP + CELL + TITLE + 2 * GAP
    x = drawing.matrix(MARGIN, TOP, page["x"], "x", bracket=False)
    out = drawing.matrix(MARGIN, below, y, "y = max(x, 0)", bracket=False)
    mask = drawing.matrix(out.right + 64, below, y > 0, "mask", bracket=False)
    dy = drawing.matrix(mask.right + 40, below, page["dy"], "dy", bracket=False)
    into = drawing.matrix(dy.x, TOP, dx, "dx = mask dy", bracket=False)
    drawing.arrow((x.x + 80, x.bottom + 6), (x.x + 80, out.y - TITLE + 2), label="forward")
    drawing.arrow((out.right + 8, out.middle), (mask.x - 8, out.middle), label="y > 0")
    drawing.sign(mask.right + 20, dy.middle, "·")
    drawing.arrow((dy.x + 80, dy.y - TITLE + 2), (dy.x + 80, into.bottom + 6), label="backward")
    for box in (x, out, mask, dy, into):
        drawing.mark(box, (0, 1), (3, 5))
    told(drawing, "where x is above 0: the gradient passes there, and nowhere else", "Outlined")
    return drawing


def s6(page: Page) -> Drawing:
    drawing = Drawing(
        "Max pooling as a selection, and its adjoint",
        "A matrix with a single 1 in each row selects the maximum of each patch. Its transpose returns the gradient.",
    )
    x, selection, dy = page["x"][0, 0], page["selection"], page["dy"][:, None]
    small = 24
    image = drawing.matrix(MARGIN, TOP, x, "image x", "two patches", bracket=False)
    column = drawing.matrix(262, TOP, x.reshape(-1, 1), "x", cell=small)
    drawing.arrow((image.right + 8, image.middle), (column.x - 14, image.middle), label="row by row")
    below = column.bottom + TITLE + GAP
    chooser = drawing.matrix(MARGIN, below, selection, "S", "a 1 where the maximum is", cell=small)
    y = drawing.matrix(column.x, below, selection @ x.reshape(-1, 1), "y = S x", cell=small)
    drawing.sign((chooser.right + y.x) / 2, y.middle, "=")
    given = drawing.matrix(430, TOP, dy, "dy", cell=small)
    turned = drawing.matrix(336, given.bottom + TITLE + GAP, selection.T, "Sᵀ", cell=small)
    back = drawing.matrix(given.x, turned.y, selection.T @ dy, "dx = Sᵀ dy", cell=small)
    drawing.sign((turned.right + back.x) / 2, back.middle, "=")
    dx = drawing.matrix(516, back.y + 40, (selection.T @ dy).reshape(x.shape), "image dx", bracket=False)
    drawing.arrow((back.right + 12, dx.middle), (dx.x - 8, dx.middle))
    for box in (image, dx):
        for first in (0, 2):
            drawing.mark(box, (0, 2), (first, first + 2))
    told(drawing, "the patches; of the four equal numbers in the second, the first is chosen", "Outlined")
    return drawing


def s7(page: Page) -> Drawing:
    drawing = Drawing(
        "Average pooling as a product with a constant row, and its adjoint",
        "Each patch is a column; a row of quarters times the columns is the means. The row, transposed, times dy gives "
        "a quarter of each gradient to each of four numbers, and col2im puts them back.",
    )
    image = drawing.matrix(MARGIN, TOP, page["x"][0, ..., 0], "image x", bracket=False)
    columns = drawing.matrix(226, TOP, page["columns"], "columns", "one for each patch")
    drawing.arrow((image.right + 8, image.middle), (columns.x - 14, image.middle), label="im2col")
    below = columns.bottom + TITLE + GAP
    row = drawing.matrix(MARGIN, below, page["row"], "row")
    y = drawing.matrix(columns.x, below, page["row"] @ page["columns"], "y = row columns")
    drawing.sign((row.right + y.x) / 2, y.middle, "=")
    dy = drawing.matrix(444, TOP, page["dy"], "dy")
    turned = drawing.matrix(380, dy.bottom + TITLE + GAP, page["row"].T, "rowᵀ")
    dcolumns = drawing.matrix(dy.x, turned.y, page["dcolumns"], "dcolumns = rowᵀ dy")
    drawing.sign((turned.right + dcolumns.x) / 2, dcolumns.middle, "=")
    dx = col2im(page["dcolumns"].reshape(1, 2, 2, 1, 2, 1), page["sweep"])[0, ..., 0]
    back = drawing.matrix(dcolumns.right + 66, dcolumns.y, dx, "", bracket=False)
    drawing.text(back.x, back.bottom + 20, "image dx", "title")
    drawing.arrow((dcolumns.right + 12, back.middle), (back.x - 8, back.middle), label="col2im")
    for box in (image, back):
        drawing.mark(box, (0, 2), (0, 2))
    for box in (columns, dcolumns):
        drawing.mark(box, (0, 4), (0, 1))
    for box in (y, dy):
        drawing.mark(box, (0, 1), (0, 1))
    mean = terms(page["row"][0], page["columns"][:, 0])
    told(drawing, f"the first patch: {mean} = {number((page['row'] @ page['columns'])[0, 0])}")
    return drawing


def s8(page: Page) -> Drawing:
    drawing = Drawing(
        "The three products of a fully connected layer",
        "W A + b; dZ times A transposed is the gradient of W; W transposed times dZ is the gradient of A.",
    )
    weight, a, dz = page["weight"], page["a"], page["dz"]
    z = weight @ a + page["bias"][:, None]
    first = falk(drawing, MARGIN, (weight, "W"), (a, "A"), (z, "Z = W A + b"))
    second = falk(drawing, first.right + 56, (dz, "dZ"), (a.T, "Aᵀ"), (dz @ a.T, "dW = dZ Aᵀ"))
    falk(drawing, second.right + 56, (weight.T, "Wᵀ"), (dz, "dZ"), (weight.T @ dz, "dA = Wᵀ dZ"))
    product = terms(weight[0], a[:, 0])
    told(drawing, f"W A + b: {product} + {number(page['bias'][0])} = {number(z[0, 0])}")
    return drawing


def falk(
    drawing: Drawing, x: float, left: tuple[Numbers, str], above: tuple[Numbers, str], product: tuple[Numbers, str]
) -> Box:
    """Draw a product where the rows of its left factor meet the columns of the one above it."""
    across = x + left[0].shape[1] * CELL + 30
    over = drawing.matrix(across, TOP, *above)
    beside = drawing.matrix(x, over.bottom + TITLE, *left)
    result = drawing.matrix(across, beside.y, *product)
    drawing.mark(beside, (0, 1), (0, left[0].shape[1]))
    drawing.mark(over, (0, above[0].shape[0]), (0, 1))
    drawing.mark(result, (0, 1), (0, 1))
    return result


def s9(page: Page) -> Drawing:
    drawing = Drawing(
        "Softmax, labels, and the gradient of the loss",
        "For each example, the gradient is the probabilities minus the one-hot label, over the number of examples.",
    )
    one_hot = np.eye(3)[page["labels"]]
    panels = (page["softmax"](page["z"]), one_hot, page["dz"])
    for example in range(2):
        zero = TOP + 104 + example * 190
        for k, (values, title) in enumerate(
            zip(panels, ("Ŷ = softmax(Z)", "Y", f"dZ = (Ŷ {MINUS} Y) / m"), strict=True)
        ):
            x = MARGIN + 84 + k * 198
            drawing.bars(x, zero, values[example], 84, title if example == 0 else "")
            if k < 2:
                drawing.sign(x + 174, zero - 40, MINUS if k == 0 else "⇒")
        drawing.text(MARGIN, zero - 44, f"example {example + 1}", "title")
        drawing.text(MARGIN, zero - 28, f"label {page['labels'][example]}")
    drawing.reach(0, zero + 24)
    told(drawing, "it raises the label and lowers the others; each row sums to 0", "A step against dZ")
    return drawing


def table(page: str) -> list[list[str]]:
    """Return the cells of a page's table, row by row, without its head."""
    rows = re.findall(r"^\|(.+)\|$", (BOOK / f"{page}.md").read_text(), re.MULTILINE)
    return [[cell.strip(" *") for cell in row.split("|")] for row in rows[2:]]


def innermost(_: Page) -> Drawing:
    drawing = Drawing(
        "The two layouts compared",
        "How many times as long each part of a convolution takes if the channels are innermost.",
    )
    rows = table("why-batch-innermost")
    for k, (layer, part) in enumerate((("first layer", rows[:4]), ("later layer", rows[4:]))):
        ratios = {name.removeprefix(f"{layer}: "): float(ratio) for name, _, _, ratio in part}
        drawing.lengths(MARGIN, TOP + k * 160, ratios, 50, f"{layer}: time of (N, H, W, C) over (C, H, W, N)")
    return drawing


def blocks(_: Page) -> Drawing:
    drawing = Drawing(
        "A step and its memory by the size of a block", "A step is fastest with blocks of half a MiB to 2 MiB."
    )
    rows = table("why-blocks")
    drawing.lengths(MARGIN, TOP, {name: float(ms) for name, ms, _ in rows}, 3.4, "a step, ms")
    drawing.lengths(MARGIN + 310, TOP, {name: float(size) for name, _, size in rows}, 2.2, "buffers, MiB")
    return drawing


def tree(page: Page) -> Drawing:
    drawing = Drawing(
        "The same additions for one, two and four workers",
        "Four shards are added by a tree. The workers share out the additions, but the tree stays the same.",
    )
    for panel, workers in enumerate((1, 2, 4)):
        dealt = page["deal"](range(4), range(workers))
        owner = {shard: worker for worker, shards in dealt.shards.items() for shard in shards}
        x = MARGIN + 20 + panel * 210
        shards, pairs, root = [x + 44 * k for k in range(4)], [x + 22, x + 110], x + 66
        drawing.heading(
            x - 20, TOP - 4, f"{workers} worker{'s' * (workers > 1)}", "a colour for each" if workers > 1 else ""
        )
        for k, at in enumerate(shards):
            drawing.line(at, TOP + 16, pairs[k // 2], TOP + 72)
            drawing.node(at, TOP + 16, str(k), owner[k])
        for k, at in enumerate(pairs):
            drawing.line(at, TOP + 72, root, TOP + 128)
            drawing.node(at, TOP + 72, f"{2 * k}+{2 * k + 1}", owner[2 * k])
        drawing.node(root, TOP + 128, "(0+1)+(2+3)", owner[0])
    return drawing


def hero() -> Drawing:
    """Draw what the first convolution of a small trained network does with a digit that it has not seen."""
    mnist = load_mnist()
    network = Network([Conv2D(4, 5), MaxPool(2), ReLU(), Flatten(), Dense(10)], (1, 28, 28), seed=0)
    for _ in train(network, mnist.train.take(np.arange(10_000)), Recipe(epochs=1)):
        pass
    digit = trace(network, mnist.test.images[:1], mnist.test.labels[:1]).activations
    x, maps = digit["images"].transpose(1, 2, 3, 0), digit["conv1"][0]
    columns = im2col(x, Window.of(2, kernel=5).over((28, 28))).reshape(25, 576)
    weight, z = network.parameters["conv1.weight"].reshape(4, 25), maps.reshape(4, 576)

    drawing = Drawing(
        "A convolution of a handwritten seven, as a matrix product",
        "im2col writes each window of the image into a column. The four filters of a trained network, as rows, times "
        "the columns are the four output maps.",
    )
    image = drawing.picture(MARGIN, TOP, x[0, ..., 0], (140, 140), "image", "28 x 28")
    lowered = drawing.picture(240, TOP, columns, (576, 140), "columns", "25 numbers under the filter x 576 positions")
    drawing.arrow((image.right + 8, image.middle), (lowered.x - 8, image.middle), label="im2col")
    below = lowered.bottom + TITLE + GAP
    filters = drawing.picture(MARGIN, below, weight, (140, 64), "filters", "4 x 25, trained on MNIST")
    product = drawing.picture(240, below, z, (576, 64), "filters · columns + biases", "4 x 576, one GEMM")
    drawing.sign((filters.right + product.x) / 2, product.middle, "=")
    bottom, k, position = product.bottom + TITLE + GAP, 1, int(z[1].argmax())
    row, column = divmod(position, 24)
    for n, values in enumerate(maps):
        box = drawing.picture(
            240 + n * 152, bottom, values, (120, 120), f"output map {n + 1}", "24 x 24", np.abs(maps).max()
        )
        if n == k:
            drawing.mark(box, (row, row + 1), (column, column + 1))
    drawing.arrow((image.right + 8, bottom + 60), (232, bottom + 60), label="reshape")
    drawing.text(MARGIN, bottom + 50, "Outlined: where")
    drawing.text(MARGIN, bottom + 66, "filter 2 responds")
    drawing.text(MARGIN, bottom + 82, "most")
    drawing.mark(image, (row, row + 5), (column, column + 5))
    drawing.mark(lowered, (0, 25), (position, position + 1))
    drawing.mark(filters, (k, k + 1), (0, 25))
    drawing.mark(product, (k, k + 1), (position, position + 1))
    return drawing


def output_maps(drawing: Drawing, x: float, y: float, maps: Numbers, title: str, note: str = "") -> list[Box]:
    """Draw maps (K, H, W) side by side, with room for their titles."""
    step, largest = max(maps.shape[2] * CELL + 14, 80), np.abs(maps).max()
    return [
        drawing.matrix(x + k * step, y, values, f"{title} {k + 1}", note, bracket=False, darkest=largest)
        for k, values in enumerate(maps)
    ]


def told(drawing: Drawing, words: str, start: str = "Outlined") -> None:
    """Write a line below everything."""
    drawing.text(MARGIN, drawing.bottom + 36, f"{start}: {words}")


FIGURES: dict[str, tuple[str, Callable[[Page], Drawing]]] = {
    "s1": ("s1", s1),
    "s2": ("s2", s2),
    "s3": ("s3", s3),
    "s4": ("s4", s4),
    "s4_second": ("s4", s4_second),
    "s5": ("s5", s5),
    "s6": ("s6", s6),
    "s7": ("s7", s7),
    "s8": ("s8", s8),
    "s9": ("s9", s9),
    "innermost": ("why-batch-innermost", innermost),
    "blocks": ("why-blocks", blocks),
    "tree": ("why-fixed-tree", tree),
}
"""For each figure, its page and what draws it."""


def figures() -> dict[str, str]:
    """Return the text of each figure of the book by its file in docs/images."""
    return {f"book/{name}.svg": draw(run_page(page)).svg() for name, (page, draw) in FIGURES.items()}


def main() -> None:
    (IMAGES / "book").mkdir(parents=True, exist_ok=True)
    for name, svg in {**figures(), "hero.svg": hero().svg()}.items():
        (IMAGES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
