"""What a user can mend is told in one line, without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a UserError into one line on stderr and its exit status; an interrupt into status 130."""
    try:
        yield
    except UserError as error:
        print(f"sn6: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("sn6: stopped", file=sys.stderr)
        sys.exit(130)
