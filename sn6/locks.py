"""One process at a time."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(path: Path, other: str) -> Iterator[None]:
    """Holds the lock `path` to the end, after waiting for another process that holds it; `other` says what that does.

    Raises:
        OSError: the folder is missing, or cannot be written
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process %s; waiting for its end", other)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
