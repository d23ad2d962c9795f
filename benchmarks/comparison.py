"""Compare two implementations with the same result: measure them in turns, and print the table."""

import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

from sn6.errors import UserError

Implementation = Callable[[], object]


class Mismatch(UserError):
    """Report that two implementations give different results, so that their times mean nothing."""


@dataclass(frozen=True)
class Row:
    """One row of the table; smaller values are better.

    Attributes:
        path: the hot path that is measured
        inputs: its inputs
        ours: value of sn6
        peer: what a user would otherwise use
        theirs: value of the peer
        agreement: how the equality of the results was checked
        min_ratio: target of `theirs / ours`, None without a target
        max_ours: target of `ours`, None without a target
        unit: unit of `ours`, `theirs` and `max_ours`
    """

    path: str
    inputs: str
    ours: float
    peer: str
    theirs: float
    agreement: str
    min_ratio: float | None = None
    max_ours: float | None = None
    unit: Literal["s", "bytes", "s/km²"] = "s"

    @property
    def reached(self) -> bool | None:
        """Return whether all targets are reached, None without a target."""
        if self.min_ratio is None and self.max_ours is None:
            return None
        return (self.min_ratio is None or self.theirs >= self.min_ratio * self.ours) and (
            self.max_ours is None or self.ours <= self.max_ours
        )


@dataclass(frozen=True)
class NotRun:
    """One row for what could not be measured.

    Attributes:
        path: as in `Row`
        reason: why it was not measured
    """

    path: str
    reason: str


def require(agree: object, message: str) -> None:
    """Raise a Mismatch with `message` unless the results agree."""
    if not agree:
        raise Mismatch(message, kind="failed")


def medians(implementations: Mapping[str, Implementation], repeats: int) -> dict[str, float]:
    """Measure the median seconds of each implementation; they run in turns, so that other load affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in implementations}
    for _ in range(repeats):
        for name, run in implementations.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_of_arrays(run: Implementation) -> float:
    """Measure the peak of the bytes that Python and NumPy allocate during a call."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def table_of(rows: Iterable[Row | NotRun]) -> Table:
    """Return the table of all rows, with the missed targets marked."""
    heads = ("path", "input", "sn6", "peer", "peer's time", "ratio", "target", "reached", "same result")
    table = Table(*heads, box=box.MARKDOWN)
    for row in rows:
        if isinstance(row, NotRun):
            table.add_row(row.path, f"not run: {row.reason}")
            continue
        ratio = f"{row.theirs / row.ours:.3g}"
        targets = [f"≥ {row.min_ratio:g} times"] if row.min_ratio else []
        targets += [f"≤ {with_unit(row.max_ours, row.unit)}"] if row.max_ours else []
        reached = {True: "yes", False: "NO", None: ""}[row.reached]
        values = (with_unit(row.ours, row.unit), row.peer, with_unit(row.theirs, row.unit), ratio)
        table.add_row(row.path, row.inputs, *values, ", ".join(targets), reached, row.agreement)
    return table


def with_unit(value: float, unit: str) -> str:
    """Format seconds or milliseconds with three digits, or megabytes, or seconds per square kilometre."""
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if unit == "s/km²":
        return f"{value:.3g} s/km²"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
