"""Report invalid input in one line, without a traceback."""

import errno
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, quota exceeded, file size limit
TRACEBACK = "Traceback (most recent call last)"
Kind = Literal[
    "unknown_key",  # no such option, group or column
    "unknown_value",  # not one of the choices
    "invalid_value",  # another type, out of range, malformed
    "missing_value",  # an option that must be given
    "conflict",  # options or files that exclude one another, or differ from an earlier run
    "not_found",  # a file, folder, tile, device or program that does not exist
    "unreadable",  # a broken, truncated or malformed file
    "unwritable",  # a file or folder that cannot be written, or a full disk
    "wrong_data",  # a file that is well formed and not what is needed
    "mismatch",  # weights that do not fit the network
    "leakage",  # training area that overlaps validation or test tiles
    "unavailable",  # a server, database or package out of reach
    "stopped",  # by a signal
    "failed",  # a run that ended without a usable result
]


class UserError(Exception):
    """Report invalid input: the message is one line that says what is wrong, where, and what to do.

    Args:
        message: the line
        kind: class of the error, for callers and tests
        key: config key, option or file that is at fault, None where there is none
        value: its value

    Attributes:
        status: exit status of the process
    """

    status = 1

    def __init__(self, message: str, *, kind: Kind = "invalid_value", key: object = None, value: Any = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.key = None if key is None else str(key)
        self.value = value

    def __str__(self) -> str:
        # A DataLoader raises an error of a worker again with the worker's traceback as its message,
        # of which the last line is "sn6.errors.UserError: <message>".
        text = super().__str__().strip()
        if TRACEBACK in text:
            text = text.splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: ")
        return escaped(text)


def escaped(text: str) -> str:
    """Return a text as one line: what no terminal shows, or obeys instead, is written as in Python.

    >>> escaped("a\\tb")
    'a\\\\tb'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def joined(errors: Sequence[UserError], where: str) -> UserError:
    """Return one error that lists all messages; its kind, key and value are those of the first.

    Args:
        errors: at least one
        where: the command or "config", which precedes the messages
    """
    first = errors[0]
    message = f"{where}: {'; '.join(dict.fromkeys(map(str, errors)))}"
    return UserError(message, kind=first.kind, key=first.key, value=first.value)


def locate_error(error: BaseException) -> str:
    """Return an error of a user's own code as text: its class, the last line outside of installed packages, message."""
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    others = ("site-packages", str(Path(__file__).parent), "<")  # installed packages, sn6, code without a file
    own = [frame for frame in frames if not any(other in frame.filename for other in others)]
    place = f" in {Path(own[-1].filename).name} line {own[-1].lineno}" if own else ""
    if isinstance(cause, SyntaxError) and cause.filename:
        place = f" in {Path(cause.filename).name} line {cause.lineno}"
    return f"{type(cause).__name__}{place}: {first_line(cause)}"


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message; the error's name where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural: `1 tile`, `2 tiles`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a UserError or a full disk into one line on stderr and an exit status."""
    try:
        yield
    except UserError as error:
        print(f"sn6: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        if error.errno in DISK_FULL:
            advice = "free some space and run the same command again"
        elif error.errno == errno.ENAMETOOLONG:
            advice = "choose a shorter name; the folder of a sweep's job is named by its swept values"
        elif isinstance(error, PermissionError | NotADirectoryError):
            advice = "choose another folder, or change its permissions"
        else:
            raise
        print(f"sn6: cannot write {error.filename or 'a file'} ({error.strerror}); {advice}", file=sys.stderr)
        sys.exit(1)
