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
    """A name beside `path` to write to, with the same suffix; it takes the place of `path` when all went well.

    Makes the folder. Raises what the writing raises, and leaves nothing of the new file then. What a process that
    was killed left is written over by the next one, so no file has two writers at a time.
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
    """Writes a text file in UTF-8.

    Raises:
        UserError: the folder or the file cannot be written
    """
    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table with a header.

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
