"""The tables, aligned to be read as they are and as Markdown."""

from collections.abc import Iterator, Sequence

from benchmarking.figures import Duel, duels, fastest, over_rounds
from benchmarking.timing import Timing
from benchmarking.work import JOBS, OURS, Results, Work

Rows = Sequence[Sequence[str]]


def table(header: Sequence[str], rows: Rows, left: int = 1) -> str:
    """Align a table; all columns but the first `left` hold numbers, and stand to the right."""
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
    """Yield every table for which there are results, each with its caption."""
    machine = results.machine
    yield (
        f"{machine.processor}, {machine.cores} cores, {machine.memory / 2**30:.0f} GiB; {machine.system}, "
        f"Python {machine.python}; {results.rounds} rounds of {results.seconds:g} s"
    )
    for job in JOBS:
        for cores in sorted({pair.work.cores for pair in results.pairs if pair.job == job}):
            yield from _job(results, job, cores)


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
    peaks = {peak.cores: peak.flops for peak in results.peaks}
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
    return f"{timing.median * 1e3:.3g} ({timing.minimum * 1e3:.3g})" if timing else ""


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
