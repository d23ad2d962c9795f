"""What is kept beside the archive, in `<root>/.sn6`, so that the next start need not find it out again.

Nothing here is needed: a kept file tells the size and time of the files that it was made from, and where it is gone,
outdated or broken, or its folder cannot be written, all is read from the archive itself.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from sn6.files import atomic_write

LOCK_TIMEOUT = 600.0  # seconds to wait for another process that reads the same files
log = logging.getLogger(__name__)


def cache_path(root: Path, name: str) -> Path:
    """Where the file `name` of the archive `root` lies."""
    return root / ".sn6" / name


def fingerprint(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Waits while another process makes `path`; whether it may be written: not where there can be no lock."""
    lock = FileLock(path.with_suffix(".lock"), timeout=LOCK_TIMEOUT)
    with suppress(OSError, NotImplementedError):  # a folder or a file system that cannot be written or locked
        path.parent.mkdir(exist_ok=True)
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Has the file written whole by `write`, who is `alone`; does without where there is no room."""
    try:
        with atomic_write(path) as part:
            write(part)
    except OSError as error:
        log.debug("%s is not kept: %s", path, error)
