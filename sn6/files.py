"""Write files atomically, read JSON, and hold locks that are files."""

import csv
import io
import json
import logging
import os
import shutil
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

    Makes the folder. The contents are on the disk before the name is, so that a power failure leaves the old file or
    the new one. On an error nothing of the new file is left. A file has one writer at a time; what a killed one left is
    overwritten by the next.

    Raises:
        OSError: the folder or the file cannot be written, or the disk is full
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        synchronize(part)  # a full disk may be reported here and not while writing
        os.replace(part, path)
        with suppress(OSError):  # a file system that cannot do it for a folder; the file is in place
            synchronize(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


def synchronize(path: Path) -> None:
    """Wait until the disk holds what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def visible(folder: Path) -> list[Path]:
    """Return what a folder contains, sorted, without hidden files such as the .DS_Store and ._* of macOS."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def shown_size(size: int) -> str:
    """Return a number of bytes with three digits and its unit.

    >>> shown_size(24_310_000)
    '24.3 MB'
    """
    unit, factor = ("GB", 1e9) if size >= 1e9 else ("MB", 1e6)
    return f"{size / factor:.3g} {unit}"


def require_disk_space(folder: Path, size: int, purpose: str, advice: str = "free some space") -> None:
    """Raise a UserError where the disk of a folder has less than `size` bytes free.

    Args:
        folder: that is written to; where it does not exist, its nearest parent that does counts
        size: bytes
        purpose: what needs them, for the message
        advice: what to do, for the message
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise UserError(
            f"{purpose} needs {shown_size(size)}, but only {shown_size(free)} are free in {folder}; {advice}",
            kind="unwritable",
            key=folder,
        )


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Raises:
        UserError: it cannot be read, or contains something else
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "empty, cut short or no JSON"
        raise UserError(
            f"{path} cannot be read ({reason}); restore it or remove it", kind="unreadable", key=path
        ) from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path} contains a {type(value).__name__} and is not a file of sn6; restore it or remove it",
            kind="wrong_data",
            key=path,
        )
    return value


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
