"""Download one file; a stop in the middle leaves a `.part` that the next call resumes."""

import glob
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sn6.acquire.remote import RemoteFile, Restart
from sn6.errors import UserError


def download_part(url: str, path: Path, max_bytes: int, expansion: float = 0.0) -> Path:
    """Download a file completely and return its `.part` in the folder of `path`, whose name contains a hash of its version.

    Args:
        url: http or https address
        path: name of the file without `.part`
        max_bytes: largest size that is accepted
        expansion: bytes to unpack per byte of the file, to be kept free

    Raises:
        UserError: the file is out of reach, too large, or does not fit on the disk; what was downloaded is kept
    """
    remote = RemoteFile(url, max_bytes)
    while True:
        version = remote.probe()
        digest = hashlib.sha256(repr((url, version)).encode()).hexdigest()[:16]
        part = path.with_name(f"{path.name}.{digest}.part")
        for other in set(path.parent.glob(f"{glob.escape(path.name)}.*.part")) - {part}:
            other.unlink()
        length = version.length
        start = part.stat().st_size if length is not None and part.exists() else 0
        check_disk_space(path.name, path.parent, (length or 0) - start, (length or 0) * expansion)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("ab" if start else "wb") as file, progress_bar() as bar:
                task = bar.add_task(f"downloading {path.name}", total=length, completed=start)
                for piece in remote.read(start):
                    file.write(piece)
                    bar.advance(task, len(piece))
            return part
        except Restart:
            part.unlink()


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show bytes, speed and remaining time of transfers on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield progress


def check_disk_space(name: str, folder: Path, download: float, unpacked: float) -> None:
    """Print the size of a download in bytes and the free disk space, and require that it fits.

    Raises:
        UserError: it does not fit, or a file is where a folder is needed
    """
    parent = existing_folder(folder)
    free = shutil.disk_usage(parent).free
    sizes = f"{decimal(round(download))} to download, about {decimal(round(unpacked))} to unpack"
    print(f"{name}: {sizes}; {decimal(free)} free in {parent}", flush=True)
    if download + unpacked > free:
        raise UserError(
            f"{name} needs {decimal(round(download + unpacked))} in {parent}, where {decimal(free)} are free; "
            "free some space, choose another root=, or fewer products=",
            kind="unwritable",
            key="root",
            value=parent,
        )


def existing_folder(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists.

    Raises:
        UserError: it is a file
    """
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is not a folder; move it, or choose another root=", kind="unwritable", key=nearest)
    return nearest
