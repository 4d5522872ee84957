"""The tables, aligned so that they read well as plain text and as Markdown."""

from collections.abc import Iterator, Sequence

from benchmarking.figures import Duel, Spread, duels, fastest, over_rounds
from benchmarking.timing import Timing
from benchmarking.work import JOBS, OURS, Growth, Results, Work

GROWTH = {
    "batch": "**Growth with the batch**: a training step of keras_mnist on one core, and the workspace of one shard",
    "side": "**Growth with the image**: one 3 x 3 convolution, 32 channels to 64, forward and backward on one core, "
    "of 4 images, by pixels per side",
}

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
    """Yield every table that there are results for, each with its caption."""
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
    lines = [
        f"{machine.processor}, {_counted(machine.cores, 'core')}, {machine.memory / 2**30:.0f} GiB; {machine.system}, "
        f"Python {machine.python}; " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{_counted(results.rounds, 'round')}, {results.seconds:g} s in each process for each job",
        *(f"A product of 2048 x 2048 on {_counted(c, 'core')}: {f / 1e9:.0f} GFLOP/s" for c, f in _peaks(results)),
        *(f"Left out: {failure}" for failure in dict.fromkeys(results.failures)),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _peaks(results: Results) -> list[tuple[int, float]]:
    counts = sorted({peak.cores for peak in results.peaks})
    return [(count, max(peak.flops for peak in results.peaks if peak.cores == count)) for count in counts]


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
    works = list(dict.fromkeys(pair.work for pair in pairs))
    where = f"{job}, {_counted(cores, 'core')}"
    yield f"**{where.capitalize()}**: milliseconds, median (minimum)\n\n{_ours(results, job, works)}"
    for framework in dict.fromkeys(pair.peer.framework for pair in pairs if pair.peer):
        allocators = list(dict.fromkeys(p.peer.allocator for p in pairs if p.peer and p.peer.framework == framework))
        rows = [_against(duels(pairs, job, work), work, framework, allocators) for work in works]
        columns = [f"{name}, {allocator}" for allocator in allocators for name in ("mode", "ms", "ratio")]
        header = ["network", "batch", "ours, ms", *columns]
        caption = f"**{where.capitalize()}, {framework}**: its fastest mode, and how many times as long it takes"
        yield f"{caption}\n\n{table(header, rows)}"


def _ours(results: Results, job: str, works: Sequence[Work]) -> str:
    peaks = dict(_peaks(results))
    costs = {(cost.network, cost.batch): cost.of(job) for cost in results.costs}
    rows = []
    for work in works:
        timing = over_rounds([pair.ours for pair in results.pairs if (pair.job, pair.work) == (job, work)])
        rate = costs[work.network, work.batch] / timing.median
        share = f"{rate / peaks[work.cores]:.0%}" if work.cores in peaks else ""
        rows.append([work.network, str(work.batch), _milliseconds(timing), f"{rate / 1e9:.1f}", share])
    return table(["network", "batch", OURS, "GFLOP/s", "of peak"], rows)


def _against(all_duels: Sequence[Duel], work: Work, framework: str, allocators: Sequence[str]) -> list[str]:
    best = [fastest(all_duels, framework, allocator) for allocator in allocators]
    mine = over_rounds([duel.ours for duel in best if duel]) if any(best) else None
    row = [work.network, str(work.batch), _milliseconds(mine)]
    for duel in best:
        row += [duel.peer.mode, _milliseconds(duel.theirs), _ratio(duel)] if duel else ["", "", ""]
    return row


def _ratio(duel: Duel) -> str:
    return f"{duel.ratio.median:.2f} ({duel.ratio.minimum:.2f}..{duel.ratio.maximum:.2f})"


def _milliseconds(timing: Timing | None) -> str:
    return f"{_three_digits(timing.median * 1e3)} ({_three_digits(timing.minimum * 1e3)})" if timing else ""


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.minimum:.2f}..{spread.maximum:.2f})"


def _mega(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
