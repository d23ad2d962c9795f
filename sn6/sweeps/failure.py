"""Why a job of a sweep failed or stopped: what its process writes and its exit status tells."""

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sn6.errors import UserError
from sn6.files import write_text
from sn6.signals import STOP_SIGNALS

REASON_FILE = "SN6_REASON_FILE"  # environment variable of a job: the file for the reason of its failure
STOPPED = tuple(128 + number for number in STOP_SIGNALS)  # exit statuses of a run that was stopped


def ending(status: int) -> str | None:
    """Return which signal ended a process with this exit status; None where it ended by itself."""
    try:
        name = signal.Signals(status - 128).name
    except ValueError:
        return None
    if status in STOPPED:
        return f"stopped by {name}"
    return f"ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")


def read_reason(path: Path) -> str | None:
    """Return the line of an `error.txt` that says what is wrong: in a traceback the first one after its last frame."""
    try:
        lines = path.read_text().rstrip().splitlines()
    except OSError:
        return None
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    return next((line for line in lines[frames[-1] if frames else 0 :] if not line.startswith(" ")), None)


@contextmanager
def record_reason() -> Iterator[None]:
    """Write an error to the file that a sweep has named to this process, unless the run itself has written it."""
    try:
        yield
    except Exception as error:
        path = Path(os.environ.get(REASON_FILE, os.devnull))
        if not path.exists():
            with suppress(UserError):  # a full disk; the error is printed all the same
                write_text(path, f"{error if isinstance(error, UserError) else traceback.format_exc()}\n")
        raise
