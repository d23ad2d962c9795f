"""Measure the time and the peak memory of a command or a function in its own process.

    python -m benchmarks.process COMMAND ARGUMENT ...      (prints the figures of the command)

A command is started by a small process: Linux counts the memory of a process before it executes another program, so
that the peak of a small command would be that of a large parent.
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

from benchmarks.comparison import Implementation

Make = Callable[..., Implementation]


class Usage(NamedTuple):
    """The resources that a process used.

    Attributes:
        seconds: wall time
        core_seconds: CPU time of all its processes
        peak: bytes of the largest process
    """

    seconds: float
    core_seconds: float
    peak: int


def measure_command(command: Sequence[str]) -> Usage:
    """Measure a command; its standard output is discarded."""
    starter = [sys.executable, "-m", "benchmarks.process", *command]
    return Usage(*json.loads(subprocess.run(starter, check=True, stdout=subprocess.PIPE, text=True).stdout))


def measure_function(function: Callable[..., Any], *arguments: Any) -> Usage:
    """Measure a module's function in a new interpreter; its imports count for the memory, not for the time."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure_call, function, arguments).result()


def measure_call(function: Callable[..., Any], arguments: Sequence[Any]) -> Usage:
    """Measure a call in this process, whose peak memory is that of its whole life."""
    started, core_started = time.perf_counter(), time.process_time()
    function(*arguments)
    seconds, core_seconds = time.perf_counter() - started, time.process_time() - core_started
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Usage(seconds, core_seconds, 1024 * int(status["VmHWM"].split()[0]))


@contextmanager
def own_process(initializer: Callable[[], None] | None = None) -> Iterator[Callable[..., Implementation]]:
    """Start a process for implementations that need the allocator and the threads of their users.

    Args:
        initializer: is called first in the process

    Yields:
        (make, *arguments) → an implementation that runs `make(*arguments)` in that process and has run once
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer) as pool:

        def implementation(make: Make, *arguments: Any) -> Implementation:
            def run() -> None:
                pool.submit(run_cached, make, arguments).result()

            run()  # makes it, and fills the caches
            return run

        yield implementation


@cache
def cached(make: Make, arguments: Sequence[Any]) -> Implementation:
    """Make an implementation once in this process."""
    return make(*arguments)


def run_cached(make: Make, arguments: Sequence[Any]) -> None:
    """Run an implementation of this process."""
    cached(make, arguments)()


def main(command: Sequence[str]) -> None:
    """Run a command and print its usage as JSON."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps(Usage(seconds, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)))


if __name__ == "__main__":
    main(sys.argv[1:])
