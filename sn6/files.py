"""Write files atomically, and hold locks that are files."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sn6.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix, which replaces `path` when the block succeeds.

    Makes the folder. On an error nothing of the new file is left. A file has one writer at a time; what a killed one
    left is overwritten by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        UserError: the folder or the file cannot be written
    """
    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); choose another folder", kind="unwritable", key=path
        ) from None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a header.

    Raises:
        UserError: the folder or the file cannot be written
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


@contextmanager
def exclusive_lock(path: Path, other: str) -> Iterator[None]:
    """Hold the lock file `path` during the block, after waiting for another process that holds it.

    Args:
        path: the lock file
        other: what the other process does, for a message

    Raises:
        OSError: the folder is missing, or not writable
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process %s; waiting until it ends", other)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
