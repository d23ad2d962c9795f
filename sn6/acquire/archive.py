"""Install the train or public test set in an archive, from the bucket, another address or a local tarball."""

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from sn6.acquire.catalogue import TARBALLS
from sn6.acquire.transfer import check_disk_space, download_file, finish, open_shown
from sn6.acquire.unpack import BLOCK, unpack
from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import AOI, RADAR, split_folder
from sn6.errors import UserError

VISIBLE = "[!.]*.tif"  # without hidden files, such as the ._* of macOS


def download_split(split: Split, root: Path, work: Path, source: str | None, md5: str, keep: bool) -> None:
    """Download, check and unpack a split. Its folder appears complete, by a rename, or not at all.

    `work` is a folder for unfinished files, `source` None for the bucket, `md5` also "published" or "unchecked".

    Raises:
        UserError: the tarball is out of reach, wrong, unsafe or too large, or the split's folder has other contents
    """
    tarball, target = TARBALLS[split], split_folder(root, split)
    if target.exists():
        images = sum(1 for _ in (target / RADAR).glob(VISIBLE))
        if images == 0 or (md5 == "published" and images != tarball.tiles):
            message = f"{target} exists with {images} SAR images (published: {tarball.tiles}); move or remove it"
            raise UserError(message, kind="conflict", key=target, value=images)
        print(f"{target} already exists: {images} SAR images")
        return
    check_folder(target)
    checksum = tarball.md5 if md5 == "published" else md5
    expansion = tarball.unpacked / tarball.size
    if path := local_file(source):
        check_disk_space(work / path.name, 0, path.stat().st_size * expansion)
        install(path, split, target, work, checksum)
    else:
        part = work / f"{tarball.name}.part"
        try:
            download_file(source or tarball.url, part, 2 * tarball.size, expansion)
            install(part, split, target, work, checksum)
        except UserError as error:
            if error.kind in ("wrong_data", "unreadable"):  # not worth resuming
                finish(part, None)
            raise
        finish(part, root / tarball.name if keep else None)
    print(f"{target} is complete; check its files with: python -m sn6.check root={shlex.quote(str(root))}")


def local_file(source: str | None) -> Path | None:
    """Return the path of a local file, None for an address.

    Raises:
        UserError: it is missing, or a folder
    """
    if source is None or "://" in source:
        return None
    path = Path(source)
    if path.is_dir():
        message = f"source={source} is a folder; an unpacked archive needs no download: set data.root to its parent"
        raise UserError(message, kind="wrong_data", key="source", value=source)
    if not path.is_file():
        message = f"source={source} is neither an address nor an existing file"
        raise UserError(message, kind="not_found", key="source", value=source)
    return path


def install(path: Path, split: Split, target: Path, work: Path, md5: str) -> None:
    """Check the tarball `path`, unpack it in `work`, then rename the complete folder to `target`."""
    if md5 != "unchecked":
        check_md5(path, md5)
    staging = work / f"{split}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    staging.mkdir()
    try:
        with open_shown(path, f"unpacking {split}") as file:
            unpack(file, str(path), split, staging)
        if not any((staging / RADAR).glob(VISIBLE)):
            message = f"{path} has no images in {split}/{AOI}/{RADAR}; check that it is the tarball of {split}"
            raise UserError(message, kind="wrong_data", key=path)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_md5(path: Path, expected: str) -> None:
    """Raise a UserError where a file has another MD5 checksum."""
    md5 = hashlib.md5(usedforsecurity=False)
    with open_shown(path, "checking the MD5 checksum") as file:
        for block in iter(partial(file.read, BLOCK), b""):
            md5.update(block)
    if md5.hexdigest() != expected:
        message = f"{path} has the MD5 checksum {md5.hexdigest()}, not {expected}; download it again, or correct md5="
        raise UserError(message, kind="wrong_data", key=path, value=md5.hexdigest())


@contextmanager
def working_folder(root: Path) -> Iterator[Path]:
    """Lock a hidden folder in `root`, on its file system, for unfinished files; remove it if it is empty at the end.

    Raises:
        UserError: another process uses it, or a file is where a folder is needed
    """
    work, new = root / ".download", not root.exists()
    check_folder(work)
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        message = f"another sn6.download is writing to {root}; wait for it, or choose another root="
        raise UserError(message, kind="conflict", key="root", value=root) from None
    try:
        yield work
    finally:
        (work / "lock").unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # not empty
            work.rmdir()
            if new:
                root.rmdir()


def check_folder(path: Path) -> None:
    """Raise a UserError where a file is in place of `path` or of a folder above it."""
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is not a folder; move it, or choose another root=", kind="unwritable", key=nearest)
