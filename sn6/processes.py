"""Spread work over the cores of the machine."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MMAP_MAX, TRIM_THRESHOLD = -4, -1  # numbers of mallopt(3)


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
    with ProcessPoolExecutor(processes, get_context("spawn"), start_worker) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def start_worker() -> None:
    """Prepare a new process."""
    keep_freed_memory()
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent is killed, and leave interrupts to the parent, which stops the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def keep_freed_memory() -> None:
    """Make the C library reuse freed memory, which it would else return and request again for every large array.

    The system clears the pages of new memory: that took a tenth of a network's forward pass on a CPU. Does nothing
    where the C library is not GNU's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no separate mapping for a large array
        mallopt(TRIM_THRESHOLD, -1)  # and nothing is returned
