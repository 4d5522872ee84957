"""The certificate: what was checked, how far off it was and may be, as a table and as JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from lowered_cnn.descriptions import JSON

PROPERTIES = (
    "forward", "dx", "dweight", "dbias", "adjoint", "subgradient", "tie rule", "statistics",
    "blocked", "fused", "repeated", "inference", "float32", "workers", "shards",
)  # fmt: skip
"""The columns of the table; gradients of parameters with other names follow."""

WIDTH = len("exact")
"""The least width of a column, so that tables of one network differ between machines only in the shares."""


@dataclass(frozen=True)
class Check:
    """One property, such as `dx`, of a part of the subject, such as a layer: it holds if `error` is at most `bound`.

    A bound of 0 requires the same bits. `sharp` is False where the bound is too wide to mean anything; that fails too.
    """

    subject: str
    part: str
    prop: str
    error: float
    bound: float
    sharp: bool = True

    @property
    def passed(self) -> bool:
        """Whether the property holds; an error of NaN fails."""
        return self.sharp and self.error <= self.bound

    def __str__(self) -> str:
        wanted = "a tight bound" if not self.sharp else f"an error of at most {self.bound:.1e}"
        got = self.bound if not self.sharp else self.error
        where = self.part if self.part == self.subject else f"{self.subject}: {self.part}"
        return f"{where}: {self.prop}: expected {wanted}, got {got:.1e}"

    @property
    def share(self) -> float:
        """The error as a share of its bound; infinite if it is NaN, or if there is an error and the bound is 0."""
        if not self.error:
            return 0.0
        share = self.error / self.bound if self.bound else math.inf
        return math.inf if math.isnan(share) else share

    @property
    def cell(self) -> str:
        """The share in percent, `exact` where the bound is 0, or `FAIL`."""
        if not self.passed:
            return "FAIL"
        return "exact" if self.bound == 0 else f"{math.ceil(100 * self.share - 1e-9)}%"


def worst(checks: Iterable[Check]) -> Check:
    """Return the check whose error takes the largest share of its bound."""
    return max(checks, key=lambda check: check.share)


@dataclass(frozen=True)
class Certificate:
    """All checks, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether there are checks, and all hold."""
        return bool(self.checks) and not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def __add__(self, other: "Certificate") -> "Certificate":
        return Certificate(self.checks + other.checks)

    def json(self) -> dict[str, JSON]:
        """Return the certificate as JSON; NaN and infinity become null."""
        checks: list[JSON] = []
        for check in self.checks:
            entry = {name: _finite(value) for name, value in asdict(check).items()}
            checks.append({**entry, "passed": check.passed})
        return {"passed": self.passed, "checks": checks}

    def __str__(self) -> str:
        """Return the table, a row per subject and a column per property, with the worst shares; then the failures."""
        subjects = list(dict.fromkeys(check.subject for check in self.checks))
        props = list(dict.fromkeys([*PROPERTIES, *(check.prop for check in self.checks)]))
        props = [prop for prop in props if any(check.prop == prop for check in self.checks)]
        shown: dict[tuple[str, str], Check] = {}
        for check in self.checks:
            before = shown.setdefault((check.subject, check.prop), check)
            if (not check.passed, check.share) > (not before.passed, before.share):
                shown[check.subject, check.prop] = check
        rows = [["error / bound", *props]]
        for subject in subjects:
            cells = (shown.get((subject, prop)) for prop in props)
            rows.append([subject, *(check.cell if check else "" for check in cells)])
        failures = [str(check) for check in self.failures]
        return "\n".join([*_table(rows), *failures, self._verdict()])

    def _verdict(self) -> str:
        exact = sum(check.bound == 0 for check in self.checks)
        failed = len(self.failures)
        verdict = f"{failed} failed" if failed else "all hold"
        return f"{len(self.checks)} checks, {exact} of them to the last bit: {verdict}"


def _finite(value: str | float) -> str | float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(WIDTH, *map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join([row[0].ljust(widths[0]), *cells[1:]]) for row, cells in zip(rows, padded, strict=True)]
    rule = "-" * len(lines[0])
    return [line.rstrip() for line in (lines[0], rule, *lines[1:], rule)]
