"""The progress of a transfer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


@contextmanager
def transfer_bar(description: str, total: int | None, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Bytes, speed and time left on a terminal; nothing elsewhere.

    Args:
        description: what is under way
        total: bytes, None where that is not known
        start: bytes that were there before

    Yields:
        To be told how many bytes there are.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    still = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=still) as progress:
        task = progress.add_task(description, total=total, completed=start)
        yield lambda done: progress.update(task, completed=done)
