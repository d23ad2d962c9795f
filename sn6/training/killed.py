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

INTERVAL = 0.5  # seconds between two looks
REPORTS = 2.0  # seconds in which the end of another process is known after its connection is closed
PATIENCE = 5.0  # seconds in which this process meets that closed connection by itself
OBSERVER = "child-process-observer"  # Lightning's thread, which looks every 5 s and then kills all without a word
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
        if killed := failed_rank(processes_of(trainer), killed_only=True):
            raise killed from None
        raise
    finally:
        finished.set()


def watch_ranks(trainer: Trainer, folder: Path, finished: threading.Event) -> None:
    """End this process with one line when another rank has ended early, as it may wait for it for ever."""
    while not finished.wait(INTERVAL):
        end_observer(trainer)
        processes = processes_of(trainer)
        error = failed_rank(processes)
        if error is None:
            continue
        if finished.wait(PATIENCE):
            return
        print(f"sn6: {error}", file=sys.stderr, flush=True)
        with suppress(UserError, OSError):  # a full disk; it is printed all the same
            write_text(folder / ERROR_FILE, f"{error}\n")
        for process in processes:
            process.kill()
        os._exit(error.status)


def end_observer(trainer: Trainer) -> None:
    """End the thread with which Lightning watches the ranks: it would kill this process before it has reported."""
    if any(thread.name == OBSERVER for thread in threading.enumerate()):
        launcher: Any = trainer.strategy.launcher
        seen = launcher.procs
        launcher.procs = seen[:]
        seen.clear()  # the observer ends when none is left to watch


def processes_of(trainer: Trainer) -> list[Any]:
    """Return the other ranks, which Lightning has started from this process."""
    launcher: Any = trainer.strategy.launcher
    return list(getattr(launcher, "procs", None) or [])


def failed_rank(processes: list[Any], killed_only: bool = False) -> UserError | None:
    """Return the error of a rank that has ended early, first of one that was killed: it ends the others too.

    Args:
        processes: of the ranks from 1
        killed_only: leave out ranks that have ended by themselves, which have printed why
    """
    statuses = {rank: process.poll() or 0 for rank, process in enumerate(processes, start=1)}
    failed = {rank: status for rank, status in statuses.items() if status < 0 or (status > 0 and not killed_only)}
    if not failed:
        return None
    rank = min(failed, key=lambda one: failed[one])
    return UserError(
        f"rank {rank} (process {processes[rank - 1].pid}) {ending(failed[rank])}; {RESUMES}",
        kind="failed",
        key="trainer.devices",
        value=len(processes) + 1,
    )


def ending(status: int) -> str:
    """Return how a process ended, by the status that subprocess gives: below 0 it is a signal."""
    if status > 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}{likely_cause(-status)}"


def likely_cause(number: int) -> str:
    """Return what is most likely behind a signal."""
    return ", most likely because the machine had no memory left" if number == signal.SIGKILL else ""
