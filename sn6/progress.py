"""Report the progress of long work on stderr.

On a terminal a bar, which disappears at the end; elsewhere, as in a log file, a plain line at the start and then few
more: a line after `INTERVAL` seconds at the earliest, when a tenth more is done or after `MAX_INTERVAL`.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

INTERVAL, MAX_INTERVAL = 20.0, 300.0  # seconds between two lines where there is no terminal
T = TypeVar("T")


class Phase:
    """Work whose progress is shown; made by `phase`.

    Args:
        name: what is done, such as "simulating 30 tiles"
        total: amount of work, None where it is not known yet
        unit: converts an amount to text
        bar: of the terminal, None where there is none
    """

    def __init__(self, name: str, total: float | None, unit: Callable[[float], str], bar: Progress | None) -> None:
        self.name, self.total, self.unit, self.bar = name, total, unit, bar
        self.done = self.first = self.done_at_line = 0.0
        self.started = self.printed = time.monotonic()
        if bar is None:
            self.line(name)
        else:
            self.task = bar.add_task(name, total=total, count="")

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """Set how much is done.

        Args:
            done: amount of work
            total: the whole amount, where it was not known before
            note: what is done, in place of the amount
        """
        self.done, self.total = done, self.total if total is None else total
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=self.total, count=note or self.count())
        elif done != self.total and self.is_due():
            left = self.seconds_left()
            self.line(f"{self.name}: {note or self.count()}" + ("" if left is None else f", {duration(left)} left"))

    def is_due(self) -> bool:
        """Return whether it is time for a line where there is no terminal."""
        seconds = time.monotonic() - self.printed
        if seconds < INTERVAL or seconds >= MAX_INTERVAL:
            return seconds >= MAX_INTERVAL
        return self.total is not None and self.done - self.done_at_line >= 0.1 * self.total

    def resume(self, done: float) -> None:
        """Set how much was done before this process; it does not count for the time that is left."""
        self.first = self.done_at_line = done
        if self.bar is not None:
            self.bar.update(self.task, completed=done, count=self.count())

    def count(self) -> str:
        """Return what is done as text: `12 of 30`."""
        return self.unit(self.done) + ("" if self.total is None else f" of {self.unit(self.total)}")

    def seconds_left(self) -> float | None:
        """Return the seconds that the rest takes at the mean speed so far; None where it is not known."""
        if self.total is None or self.done <= self.first:
            return None
        return (time.monotonic() - self.started) * (self.total - self.done) / (self.done - self.first)

    def line(self, text: str) -> None:
        """Print a line, above the bar on a terminal."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
        self.printed, self.done_at_line = time.monotonic(), self.done


@contextmanager
def phase(name: str, total: float | None = None, unit: Callable[[float], str] = "{:,.0f}".format) -> Iterator[Phase]:
    """Show the progress of the work inside; see `Phase` for the arguments."""
    console = Console(stderr=True)
    with ExitStack() as stack:
        bar = None
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
            times = (TimeElapsedColumn(), TimeRemainingColumn())
            bar = stack.enter_context(Progress(*columns, *times, console=console, transient=True))
        yield Phase(name, total, unit, bar)


def track(items: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` and show the progress.

    Args:
        items: to iterate over
        name: what is done with them, such as "simulating 30 tiles"
        total: their number, where `items` does not know it
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with phase(name, total) as shown:
        for done, item in enumerate(items):
            shown.update(done)
            yield item


def duration(seconds: float) -> str:
    """Return a time as text: `41 s`, `3 min 20 s`, `2 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
