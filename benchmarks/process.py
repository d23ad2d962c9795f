"""What a command or a function takes that has a process to itself: time, and the peak of its memory.

    python -m benchmarks.process COMMAND WORD ...      (prints the figures of the command)

A command is started by a small process of its own: Linux counts the memory of a process to the program that it turns
into, so that the peak of a small command would be that of whoever starts it.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.comparison import Way


class Usage(NamedTuple):
    """What was taken.

    Attributes:
        seconds: on the clock
        of_a_core: seconds of processors, of all processes
        peak: bytes of the largest process
    """

    seconds: float
    of_a_core: float
    peak: int


def of_command(words: Sequence[str]) -> Usage:
    """Of a command, whose standard output goes nowhere."""
    starter = [sys.executable, "-m", "benchmarks.process", *words]
    return Usage(*json.loads(subprocess.run(starter, check=True, stdout=subprocess.PIPE, text=True).stdout))


def of_function(function: Callable[..., Any], *given: Any) -> Usage:
    """Of a module's function in a fresh interpreter, whose imports are in the memory and not in the time."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_call, function, given).result()


def _call(function: Callable[..., Any], given: Sequence[Any]) -> Usage:
    started, of_a_core = time.perf_counter(), time.process_time()
    function(*given)
    used = time.perf_counter() - started, time.process_time() - of_a_core
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Usage(*used, 1024 * int(status["VmHWM"].split()[0]))


@contextmanager
def apart(begin: Callable[[], None] | None = None) -> Iterator[Callable[..., Way]]:
    """A process for ways whose allocator and threads are to be as their users have them.

    Args:
        begin: is called there first

    Yields:
        (make, *given) → the way that `make(*given)` gives in that process; it has been done once
    """
    with ProcessPoolExecutor(1, get_context("spawn"), begin) as pool:

        def way(make: Callable[..., Way], *given: Any) -> Way:
            def done() -> None:
                pool.submit(_do, make, given).result()

            done()  # makes it, and fills the caches
            return done

        yield way


@cache
def _made(make: Callable[..., Way], given: Sequence[Any]) -> Way:
    return make(*given)


def _do(make: Callable[..., Way], given: Sequence[Any]) -> None:
    _made(make, given)()


def main(words: Sequence[str]) -> None:
    """Runs a command and prints what it took."""
    started = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps(Usage(seconds, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)))


if __name__ == "__main__":
    main(sys.argv[1:])
