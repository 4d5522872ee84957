"""The tables, aligned so that they read well as plain text and as Markdown."""

from collections.abc import Iterator, Sequence
from statistics import geometric_mean

from benchmarking.figures import Duel, Spread, duels, fastest, over_rounds
from benchmarking.processes import ENVIRONMENTS
from benchmarking.timing import Timing
from benchmarking.work import JOBS, OURS, Growth, Pair, Results
from lowered_cnn.kernels import Processor

GROWTH = {
    "batch": "**Growth with the batch**: a training step of keras_mnist on one core, and the workspace of one shard",
    "side": "**Growth with the image**: one 3 x 3 convolution, 32 channels to 64, forward and backward on one core, "
    "of 4 images, by pixels per side",
}

NAMES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "onnxruntime": "ONNX Runtime"}

Rows = Sequence[Sequence[str]]


def table(header: Sequence[str], rows: Rows, left: int = 1) -> str:
    """Align a table; all columns but the first `left` hold numbers and are right-aligned."""
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(_line(cells, widths, left) for cells in (header, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if column < left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def report(results: Results) -> Iterator[str]:
    """Yield every table that there are results for, each with its caption, as docs/performance.md has them."""
    yield _conditions(results)
    for job in JOBS:
        for cores in sorted({pair.work.cores for pair in results.pairs if pair.job == job}):
            yield from _job(results, job, cores)
    if results.starts:
        yield _starts(results)
    for axis, caption in GROWTH.items():
        points = [point for point in results.growth if point.axis == axis]
        if points:
            yield f"{caption}\n\n{_growth(points)}"


def _conditions(results: Results) -> str:
    machine, versions = results.machine, {i.framework: i.version for i in results.installed}
    processor = Processor(machine.processor, machine.vendor, machine.family, machine.model)
    lines = [
        f"{processor}, {_counted(machine.cores, 'core')}, {machine.memory / 2**30:.0f} GiB; {machine.system}, "
        f"Python {machine.python}; " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"Environment: {ENVIRONMENTS.get(results.environment, results.environment)}",
        f"{_counted(results.rounds, 'round')}, {results.seconds:g} s in each process for each job",
        *(
            f"Kernels of {name}: {kernels}"
            for name, kernels in {s.framework: s.kernels for s in results.speeds}.items()
        ),
        *_products(results),
        *(f"Left out: {failure}" for failure in dict.fromkeys(results.failures)),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _products(results: Results) -> Iterator[str]:
    """Yield the speed of a large product in all frameworks, for each number of cores."""
    for cores in sorted({speed.cores for speed in results.speeds}):
        peaks = _peaks(results, cores)
        told = ", ".join(f"{name} {flops / 1e9:.0f}" for name, flops in peaks.items())
        yield f"A product of 2048 x 2048 on {_counted(cores, 'core')}, GFLOP/s: {told}"


def _peaks(results: Results, cores: int) -> dict[str, float]:
    here = [speed for speed in results.speeds if speed.cores == cores]
    return {
        name: max(s.flops for s in here if s.framework == name) for name in dict.fromkeys(s.framework for s in here)
    }


def _starts(results: Results) -> str:
    installed = {each.framework: each for each in results.installed}
    rows = []
    for framework in dict.fromkeys(start.framework for start in results.starts):
        mine = [start for start in results.starts if start.framework == framework]
        imports = Spread.of([start.import_seconds for start in mine])
        first = Spread.of([start.first_prediction for start in mine])
        size = f"{installed[framework].bytes / 1e6:,.0f}" if framework in installed else ""
        rows.append([framework, _seconds(imports), _seconds(first), size])
    header = ["framework", "import, s", "to the first prediction, s", "installed, MB"]
    return f"**Cold start**: median (from..to)\n\n{table(header, rows)}"


def _growth(points: Sequence[Growth]) -> str:
    rows = [[str(p.size), _milliseconds(p.step), _each(p), _mega(p.memory), _mega(p.workspace)] for p in points]
    return table(["size", "ms", "us an image", "peak memory, MB", "workspace, MB"], rows)


def _each(point: Growth) -> str:
    return f"{point.step.median / point.batch * 1e6:,.0f}"


def _job(results: Results, job: str, cores: int) -> Iterator[str]:
    pairs = [pair for pair in results.pairs if pair.job == job and pair.work.cores == cores]
    held = ", ours with OPENBLAS_CORETYPE=Haswell" if results.environment == "avx2" else ""
    where = f"{_counted(cores, 'core')}{held}"
    yield f"**Our {job}, {where}**: milliseconds, median (minimum)\n\n{_ours(results, pairs, cores)}"
    for batch in sorted({pair.work.batch for pair in pairs}, reverse=True):
        for allocator in dict.fromkeys(pair.peer.allocator for pair in pairs if pair.peer):
            tuned = f", allocator {allocator}" if allocator != "installed" else ""
            here = [p for p in pairs if p.work.batch == batch and p.peer and p.peer.allocator == allocator]
            if here:
                means, rows = _against(here)
                caption = (
                    f"**{job.capitalize()}, batch {batch}, {where}{tuned}** (geometric mean of the ratios: {means})"
                )
                yield f"{caption}:\n\n{rows}"


def _ours(results: Results, pairs: Sequence[Pair], cores: int) -> str:
    peak = _peaks(results, cores).get(OURS)
    costs = {(cost.network, cost.batch): cost for cost in results.costs}
    rows = []
    for work in dict.fromkeys(pair.work for pair in pairs):
        here = [pair for pair in pairs if pair.work == work]
        timing = over_rounds([pair.ours for pair in here])
        rate = costs[work.network, work.batch].of(here[0].job) / timing.median
        share = f"{rate / peak:.0%}" if peak else ""
        rows.append([work.network, str(work.batch), _milliseconds(timing), f"{rate / 1e9:.1f}", share])
    return table(["network", "batch", OURS, "GFLOP/s", "of peak"], rows)


def _against(pairs: Sequence[Pair]) -> tuple[str, str]:
    """Return the mean ratio of each framework, and the table of its fastest mode beside us, network by network."""
    frameworks = list(dict.fromkeys(pair.peer.framework for pair in pairs if pair.peer))
    ratios: dict[str, list[float]] = {framework: [] for framework in frameworks}
    rows = []
    for network in dict.fromkeys(pair.work.network for pair in pairs):
        all_duels = duels([pair for pair in pairs if pair.work.network == network])
        row = [network]
        for framework in frameworks:
            duel = fastest(all_duels, framework)
            row += _cells(duel)
            ratios[framework] += [duel.ratio.median] if duel else []
        rows.append(row)
    header = ["network", *(name for framework in frameworks for name in ("ours", NAMES[framework], "ratio"))]
    means = ", ".join(f"{NAMES[name]} {geometric_mean(values):.2f}" for name, values in ratios.items())
    return means, table(header, rows)


def _cells(duel: Duel | None) -> list[str]:
    if not duel:
        return ["", "", ""]
    return [_milliseconds(duel.ours), f"{_milliseconds(duel.theirs)}, {duel.peer.mode}", _ratio(duel)]


def _ratio(duel: Duel) -> str:
    return f"{duel.ratio.median:.2f} ({duel.ratio.minimum:.2f}..{duel.ratio.maximum:.2f})"


def _milliseconds(timing: Timing) -> str:
    return f"{_three_digits(timing.median * 1e3)} ({_three_digits(timing.minimum * 1e3)})"


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.minimum:.2f}..{spread.maximum:.2f})"


def _mega(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
