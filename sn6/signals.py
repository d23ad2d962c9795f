"""Stop a command at SIGINT (Ctrl-C) or SIGTERM: in one line, with the exit status of shells, and no process left."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEATED_WITHIN = 1.0  # seconds; `timeout` and a sweep send a signal to a process that has got it with its group
FIRST_RANK_ENDS = 10.0  # seconds that the first rank has to end the others
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # environment variables of torchrun, Lightning and srun


class Stopped(BaseException):
    """Report that a signal stopped the command; no Exception, as it is to pass where errors are survived.

    Args:
        number: the signal
        advice: how to resume

    Attributes:
        status: exit status of the process: 128 plus the signal's number, as shells report it
        kind, key, value: as those of a UserError
    """

    kind, key = "stopped", None

    def __init__(self, number: int, advice: str = "run the same command again") -> None:
        self.number = number
        self.status = 128 + number
        self.value = signal.Signals(number).name
        super().__init__(f"stopped by {self.value}; {advice}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.number,)


class SignalHandler:
    """Call a function at the first signal; a second one ends the process at once.

    Forked processes inherit it: they leave SIGINT to their parent, and SIGTERM ends them.

    Args:
        first: called with the number of the first signal

    Attributes:
        number: of the first signal, None before
    """

    def __init__(self, first: Callable[[int], None]) -> None:
        self.first = first
        self.number: int | None = None
        self.time = 0.0
        self.process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        is_repeated = time.monotonic() - self.time < REPEATED_WITHIN
        if os.getpid() != self.process:
            if number == signal.SIGTERM:
                end_by(number)
        elif self.number is None:
            self.number, self.time = number, time.monotonic()
            self.first(number)
        elif not is_repeated:
            end_by(number)


def end_by(number: int) -> None:
    """End this process as if it had no handler for this signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def stop(number: int, advice: str = "run the same command again") -> None:
    """Raise Stopped, in the first process of a run; the others wait until it ends them.

    They continue meanwhile, as the first one may wait for them. Where it does not end them, they end themselves.
    """
    if is_first_rank():
        raise Stopped(number, advice)
    timer = threading.Timer(FIRST_RANK_ENDS, os._exit, [128 + number])
    timer.daemon = True
    timer.start()


def is_first_rank() -> bool:
    """Return whether this is the only process of a run, or the first of several."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stopped within the block when a signal comes, and end the process with one line and its status.

    An error that follows from the signal, as of a worker process that got it too, counts as the stop.
    """
    handler = SignalHandler(stop)
    try:
        with signal_handlers(handler):
            try:
                yield
            except Exception as error:
                if handler.number is None:
                    raise
                raise Stopped(handler.number) from error
    except Stopped as stopped:
        if is_first_rank():
            print(f"sn6: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)


@contextmanager
def exit_on_closed_pipe() -> Iterator[None]:
    """End the process silently, with the status of SIGPIPE, where the reader of stdout has closed it (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        pipe = select.poll()
        pipe.register(sys.stdout, 0)  # 0: only whether it is closed
        if not pipe.poll(0):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout when it ends
        sys.exit(128 + signal.SIGPIPE)


@contextmanager
def signal_handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the stop signals within the block; does nothing in other threads than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
