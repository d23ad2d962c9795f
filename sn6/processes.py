"""Work that is spread over the cores of the machine."""

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
    """What `work` makes of each item, in order, from several processes.

    Args:
        work: importable, as the processes start afresh
        items: can be pickled
        is_worth_it: whether there is so much to do that other processes have started long before it is done
        processes: how many; None is one for each core
    """
    cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    processes = min(processes or cores, len(items))
    if processes <= 1 or not is_worth_it:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), begin) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def begin() -> None:
    """How each of the processes starts."""
    keep_freed_memory()
    end_with_parent()


def end_with_parent() -> None:
    """Has this process end when its parent was killed, and leaves interrupts to the parent, which stops the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def keep_freed_memory() -> None:
    """Has the C library use freed memory again, which it would else hand back and fetch anew for every large array.

    The system clears the pages that it gives: of a network's forward pass on a CPU that was a tenth. Where the C
    library is not GNU's, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no mapping of its own for a large array
        mallopt(TRIM_THRESHOLD, -1)  # and nothing back
