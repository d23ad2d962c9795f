"""Work for other processes, in a module that imports little: each process imports it anew."""

import os
import signal
import time

from sn6.errors import UserError
from sn6.files import atomic_write
from sn6.processes import in_processes
from sn6.signals import stop_on_signals


def square_or_fail(number):
    """Return the square and the process that computed it; 7 fails."""
    if number == 7:
        raise UserError("invalid number=7", kind="invalid_value", key="number", value=7)
    return number**2, os.getpid()


def write_and_sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(100)


def spread(paths):
    list(in_processes(write_and_sleep, paths, is_worth_it=True))


def write_slowly(path):
    with atomic_write(path) as part:
        part.write_text("unfinished")
        time.sleep(100)


def spread_until_stopped(paths):
    with stop_on_signals():
        list(in_processes(write_slowly, paths, is_worth_it=True))


def end_by_signal(number):
    """Be killed, as by the kernel when the memory ends."""
    os.kill(os.getpid(), signal.SIGKILL)
