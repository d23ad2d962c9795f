"""Cache what takes long to read from an archive in `<root>/.sn6`, so that the next start need not read it again.

==============================  =======================================  =====================
file                            contents                                 module
==============================  =======================================  =====================
index-<split>-<product>.json    bounds of the tiles, from their headers  `sn6.datasets.headers`
labels-<split>.npz              footprints and heights, from the CSV     `sn6.datasets.labels`
statistics-<product>.json       sums over the pixels of each tile        `sn6.datasets.statistics`
images.json                     grids and bands of images, from headers  `sn6.datasets.image_files`
==============================  =======================================  =====================

The cache is optional: each file records the size and time of the files that it was made from. Where it is missing,
outdated or broken, or where the folder cannot be written, the archive itself is read.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from sn6.files import atomic_write

RULE = 2  # increase it when the same image gives other values or valid pixels, or other headers are refused
SIDECARS = (".msk", ".aux.xml")  # masks; nodata values, scales, CRS
Fingerprint = tuple[int, ...]
LOCK_TIMEOUT = 600.0  # seconds to wait for another process that reads the same files
log = logging.getLogger(__name__)


def cache_path(root: Path, name: str) -> Path:
    """Return the path of the cached file `name` of the archive `root`."""
    return root / ".sn6" / name


def fingerprint(path: Path | str) -> tuple[int, int]:
    """Return the size of a file in bytes and the time of its last change in ns."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def image_fingerprint(path: Path | str) -> tuple[int, int, int]:
    """Return RULE, and the sums of size in bytes and time of the last change in ns over a GeoTIFF and its SIDECARS.

    Raises:
        OSError: the file does not exist
    """
    size, time = fingerprint(path)
    for suffix in SIDECARS:
        with suppress(FileNotFoundError):
            sidecar = fingerprint(f"{path}{suffix}")
            size, time = size + sidecar[0], time + sidecar[1]
    return RULE, size, time


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold the lock of a cached file, after waiting for a process that holds it.

    Yields:
        Whether the lock is held, and so whether `path` may be written: not in a folder or file system that cannot be
        written or locked.
    """
    lock = FileLock(path.with_suffix(".lock"), timeout=LOCK_TIMEOUT)
    with suppress(OSError, NotImplementedError):
        path.parent.mkdir(exist_ok=True)
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Write a cached file atomically; the caller holds its `lock`. Without free space there is no cache.

    Args:
        path: the cached file
        write: writes the contents to the path that it is given
    """
    try:
        with atomic_write(path) as part:
            write(part)
    except OSError as error:
        log.debug("%s is not cached: %s", path, error)
