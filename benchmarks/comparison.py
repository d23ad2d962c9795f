"""What the parts of `python -m benchmarks` have in common: two ways to one answer, measured in turns."""

import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

from sn6.errors import UserError

Way = Callable[[], object]


class Mismatch(UserError):
    """The two ways give different answers, so their times say nothing."""


@dataclass(frozen=True)
class Row:
    """One line of the table; all values are the less, the better.

    Attributes:
        path: what is measured
        given: the input
        ours: of sn6
        peer: what a user would otherwise use
        theirs: of the peer
        equality: how it was checked that both give the same
        ratio: `theirs / ours` that is wanted at least; None where that does not matter
        most: `ours` that is wanted at most; None where that does not matter
        unit: of `ours`, `theirs` and `most`
    """

    path: str
    given: str
    ours: float
    peer: str
    theirs: float
    equality: str
    ratio: float | None = None
    most: float | None = None
    unit: Literal["s", "bytes", "s/km²"] = "s"

    @property
    def reached(self) -> bool | None:
        """Whether what is wanted is there; None where nothing is."""
        if self.ratio is None and self.most is None:
            return None
        return (self.ratio is None or self.theirs >= self.ratio * self.ours) and (
            self.most is None or self.ours <= self.most
        )


@dataclass(frozen=True)
class NotRun:
    """A line for what could not be measured.

    Attributes:
        path: as in `Row`
        why: as a clause after "not run:"
    """

    path: str
    why: str


def require(same: object, message: str) -> None:
    """Raises a Mismatch with `message` unless the answers are the `same`."""
    if not same:
        raise Mismatch(message)


def medians(ways: Mapping[str, Way], repeats: int) -> dict[str, float]:
    """The median seconds of each way; the ways take turns, so that whatever else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_of_arrays(way: Way) -> float:
    """The most bytes that Python and numpy held at a time beyond what they held before."""
    tracemalloc.start()
    try:
        way()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def table_of(rows: Iterable[Row | NotRun]) -> Table:
    """All rows; what falls short is marked."""
    heads = ("path", "input", "sn6", "peer", "its", "ratio", "wanted", "reached", "same answer")
    table = Table(*heads, box=box.MARKDOWN)
    for row in rows:
        if isinstance(row, NotRun):
            table.add_row(row.path, f"not run: {row.why}")
            continue
        ratio = f"{row.theirs / row.ours:.3g}"
        wanted = [f"≥ {row.ratio:g} times"] if row.ratio else []
        wanted += [f"≤ {amount(row.most, row.unit)}"] if row.most else []
        reached = {True: "yes", False: "NO", None: ""}[row.reached]
        figures = (amount(row.ours, row.unit), row.peer, amount(row.theirs, row.unit), ratio)
        table.add_row(row.path, row.given, *figures, ", ".join(wanted), reached, row.equality)
    return table


def amount(value: float, unit: str) -> str:
    """Seconds or milliseconds in three figures, or megabytes, or seconds for a square kilometre."""
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if unit == "s/km²":
        return f"{value:.3g} s/km²"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
