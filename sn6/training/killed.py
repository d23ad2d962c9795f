"""Processes of a run that something else has killed: one line, in place of the errors of those that wait for them."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning import Trainer

from sn6.errors import UserError, first_line
from sn6.files import write_text
from sn6.training.resume import ERROR_FILE

INTERVAL = 0.5  # seconds between two looks; Lightning looks every 5 s, and then kills all processes without a word
REPORTS = 2.0  # seconds in which the end of another process is known after its connection is closed
LOADER = re.compile(r"DataLoader worker \(pid")  # is killed, or exited unexpectedly
RESUMES = "run the same command again to resume"


@contextmanager
def report_killed(trainer: Trainer, folder: Path, workers: int) -> Iterator[None]:
    """Report in one line that a rank or a process that loads data was killed, and end all others.

    Args:
        trainer: whose ranks Lightning starts when the training begins
        folder: of the run
        workers: `data.num_workers`

    Raises:
        UserError: one was killed
    """
    finished = threading.Event()
    threading.Thread(target=watch_ranks, args=(trainer, folder, finished), daemon=True).start()
    try:
        yield
    except RuntimeError as error:
        if LOADER.search(str(error)):
            raise UserError(
                f"{first_line(error).rstrip('. ')}{likely_cause(signal.SIGKILL)}: set a smaller "
                f"data.num_workers={workers} or data.batch_size; {RESUMES}",
                kind="failed",
                key="data.num_workers",
                value=workers,
            ) from None
        if processes_of(trainer):
            time.sleep(REPORTS)
        if killed := killed_rank(processes_of(trainer)):
            raise killed from None
        raise
    finally:
        finished.set()


def watch_ranks(trainer: Trainer, folder: Path, finished: threading.Event) -> None:
    """End this process with one line when a rank was killed, as it may wait for it for ever."""
    while not finished.wait(INTERVAL):
        processes = processes_of(trainer)
        if (killed := killed_rank(processes)) is None:
            continue
        time.sleep(REPORTS)  # in which it meets the closed connection, and reports it itself
        if finished.is_set():
            return
        print(f"sn6: {killed}", file=sys.stderr, flush=True)
        with suppress(UserError, OSError):  # a full disk; it is printed all the same
            write_text(folder / ERROR_FILE, f"{killed}\n")
        for process in processes:
            process.kill()
        os._exit(killed.status)


def processes_of(trainer: Trainer) -> list[Any]:
    """Return the other ranks, which Lightning has started from this process."""
    launcher: Any = trainer.strategy.launcher
    return list(getattr(launcher, "procs", None) or [])


def killed_rank(processes: list[Any]) -> UserError | None:
    """Return the error of the first rank that a signal has ended; None where all live or have ended by themselves."""
    for rank, process in enumerate(processes, start=1):
        if (status := process.poll()) is not None and status < 0:
            name = signal.Signals(-status).name
            return UserError(
                f"rank {rank} (process {process.pid}) was killed by {name}{likely_cause(-status)}; {RESUMES}",
                kind="failed",
                key="trainer.devices",
                value=len(processes) + 1,
            )
    return None


def likely_cause(number: int) -> str:
    """Return what is most likely behind a signal."""
    return ", most likely because the machine had no memory left" if number == signal.SIGKILL else ""
