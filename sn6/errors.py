"""What a user can mend is told in one line, without a traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a used-up quota, a file over its limit


class UserError(Exception):
    """Wrong input. The message is one line that says what is wrong, where, and what to do.

    Attributes:
        status: that the process exits with
    """

    status = 1

    def __str__(self) -> str:
        # A DataLoader raises a worker's error again with the worker's traceback as its message,
        # of which the last line is "sn6.errors.UserError: <what was said>".
        line = super().__str__().strip().splitlines()[-1]
        return line.removeprefix(f"{UserError.__module__}.UserError: ")


def first_line(error: BaseException) -> str:
    """What a library says, cut to its first line; the error's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a UserError and a full disk into one line on stderr and an exit status; an interrupt into status 130."""
    try:
        yield
    except UserError as error:
        print(f"sn6: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        if error.errno in FULL:
            advice = "make room and run the same command again"
        elif error.errno == errno.ENAMETOOLONG:
            advice = "choose a shorter name; the folder of a job is named by what is swept, or by hydra.sweep.subdir"
        elif isinstance(error, PermissionError | NotADirectoryError):
            advice = "choose another folder, or change what may be done there"
        else:
            raise
        print(f"sn6: {error.filename or 'a file'} cannot be written ({error.strerror}); {advice}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("sn6: stopped", file=sys.stderr)
        sys.exit(130)
