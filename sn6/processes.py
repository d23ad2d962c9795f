"""Spread work over the cores of the machine, and end the processes that do it."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process
from typing import Any, TypeVar

from sn6.errors import UserError
from sn6.signals import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")
MMAP_MAX, TRIM_THRESHOLD = -4, -1  # numbers of mallopt(3)
PR_SET_PDEATHSIG = 1  # number of prctl(2)
LAST_SAMPLES = 10.0  # seconds that a DataLoader's worker serves its parent after a signal
CLEAN_UP = 2.0  # seconds that a process has to remove its unfinished files


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], is_worth_it: bool, processes: int | None = None
) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order, computed in several processes.

    Args:
        work: importable function, as the processes start from nothing
        items: picklable
        is_worth_it: whether the work takes much longer than to start processes; if not, it is done in this one
        processes: number; None is one per core
    """
    cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    processes = min(processes or cores, len(items))
    if processes <= 1 or not is_worth_it:
        yield from map(work, items)
        return
    with WorkerPool(processes, get_context("spawn"), start_worker) as pool:
        with interrupts_blocked():
            results = pool.map(work, items)
        yield from results


class WorkerPool(ProcessPoolExecutor):
    """A pool of processes that does not wait for its work after an error, and ends it when the command is stopped."""

    def submit(self, work: Callable[..., Result], /, *items: Any, **options: Any) -> Future[Result]:
        """Return the future of a call in another process."""
        return super().submit(call, work, *items, **options)

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is not None and issubclass(kind, BrokenProcessPool):
            self.shutdown()
            raise UserError(
                "a process was killed, most likely because the machine had no memory left; run the same command again, "
                "with fewer processes or smaller pieces",
                kind="failed",
            ) from None
        if kind is not None:
            workers = list((self._processes or {}).values())
            self.shutdown(wait=False, cancel_futures=True)
            if not issubclass(kind, Exception):
                end_forkserver()
                end_processes(workers)
        self.shutdown()


def start_server(module: str) -> None:
    """Start the server from which workers are forked, if there is none yet; it imports while this process continues.

    Args:
        module: with all that workers need; its import must not use a device
    """
    get_context("forkserver").set_forkserver_preload([module])
    with interrupts_blocked():
        forkserver.ensure_running()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes that do not get SIGINT, not even before they can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_forkserver() -> None:
    """Kill the server that forks workers, if there is one: it would start those that have been requested."""
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if server is not None:
        os.kill(server, signal.SIGKILL)


def end_processes(processes: Sequence[Any]) -> None:
    """Terminate processes of multiprocessing, and kill those that do not end."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + CLEAN_UP
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()


def call(work: Callable[..., Result], *items: Any, **options: Any) -> Result:
    """Return the result of the work; when a signal stops it, remove its unfinished files and end this process."""
    signal.signal(signal.SIGTERM, stop_worker)
    try:
        return work(*items, **options)
    except Stopped as stopped:
        os._exit(stopped.status)  # the pool would continue with the next item
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def start_worker() -> None:
    """Prepare a new process."""
    keep_freed_memory()
    end_with_parent()


def stop_worker(number: int, frame: Any) -> None:
    """Stop the work of this process."""
    raise Stopped(number)


def end_with_parent() -> None:
    """End this process when its parent ends it or is killed; leave interrupts to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def start_loader_worker(number: int) -> None:
    """Prepare a worker of a DataLoader: after a signal the parent still needs its samples to reach a checkpoint."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_later)


def end_later(number: int, frame: Any) -> None:
    """End this process after a while, or at the next signal: the DataLoader's own end of it comes by a signal too."""
    signal.signal(number, signal.SIG_DFL)
    timer = threading.Timer(LAST_SAMPLES, os._exit, [128 + number])
    timer.daemon = True
    timer.start()


def end_with_first_rank() -> None:
    """Have the system kill this process with its parent, where Lightning has started it as another rank (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_freed_memory() -> None:
    """Make the C library reuse freed memory, which it would else return and request again for every large array.

    The system clears the pages of new memory: that took a tenth of a network's forward pass on a CPU. Does nothing
    where the C library is not GNU's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no separate mapping for a large array
        mallopt(TRIM_THRESHOLD, -1)  # and nothing is returned
