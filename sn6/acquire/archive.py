"""Install the train or public test set in an archive, from the bucket, another address or a local tarball."""

import hashlib
import os
import shlex
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from sn6.acquire.catalogue import TARBALLS
from sn6.acquire.transfer import check_disk_space, download_part, existing_folder, progress_bar
from sn6.acquire.unpack import BLOCK, unpack
from sn6.datasets.layout import AOI, Split, split_folder
from sn6.errors import UserError


def download_split(
    split: Split, root: Path, work: Path, source: str | None, products: Collection[str] | None, md5: str, keep: bool
) -> None:
    """Download, check and unpack a split. Its folder appears complete, by a rename, or not at all.

    Args:
        split: train or test_public
        root: folder of the archive
        work: folder for unfinished files
        source: address or local tarball, None for the bucket
        products: images to unpack, None for all; labels are always unpacked
        md5: checksum of the tarball, or "published" or "unchecked"
        keep: whether a downloaded tarball is moved to `root` instead of removed

    Raises:
        UserError: the tarball is out of reach, wrong, unsafe or too large, or the split's folder has other contents
    """
    tarball, target, published = TARBALLS[split], split_folder(root, split), md5 == "published"
    chosen = [product for product in tarball.products if products is None or product in products]
    if not chosen:
        message = f"{split} has only {', '.join(tarball.products)}; change products="
        raise UserError(message, kind="unknown_value", key="products", value=products)
    required = chosen if products or published else []
    if existing_folder(target) == target.absolute() and any(target.iterdir()):
        check_installed(target, required, tarball.tiles if published else None)
        print(f"{target} is already there: {contents(target)}")
        return
    md5, kept, expansion = tarball.md5 if published else md5, root / tarball.name, tarball.expansion(chosen)
    local = kept if source is None and kept.exists() else local_file(source)
    skip = set(tarball.products) - set(chosen)
    if local is not None:
        check_disk_space(str(local), root, 0, local.stat().st_size * expansion)
        install(local, split, target, work, skip, required, md5)
    else:
        part = download_part(source or tarball.url, work / tarball.name, 2 * tarball.size, expansion)
        try:
            install(part, split, target, work, skip, required, md5)
        except UserError as error:
            if error.kind in ("wrong_data", "unreadable"):  # not worth resuming
                part.unlink()
            raise
        if keep:
            os.replace(part, kept)
        else:
            part.unlink()
    print(f"{target}: {contents(target)}")
    print(f"next, check that all files are valid: python -m sn6.check root={shlex.quote(str(root))}")


def local_file(source: str | None) -> Path | None:
    """Return the path of a local file, None for an address.

    Raises:
        UserError: it is missing, or a folder
    """
    if source is None or "://" in source:
        return None
    if Path(source).is_dir():
        message = f"source={source} is a folder, and an unpacked archive needs no download; use it where it is"
        raise UserError(message, kind="wrong_data", key="source", value=source)
    if not Path(source).is_file():
        message = f"source={source} is neither an address nor an existing file"
        raise UserError(message, kind="not_found", key="source", value=source)
    return Path(source)


def install(
    path: Path, split: Split, target: Path, work: Path, skip: Collection[str], required: Collection[str], md5: str
) -> None:
    """Check and unpack the tarball `path` next to `target`, then rename the complete folder to it."""
    if md5 != "unchecked":
        check_md5(path, md5)
    staging = work / f"{split}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    staging.mkdir()
    try:
        with progress_bar() as bar, bar.open(path, "rb", description=f"unpacking {split}") as file:
            unpack(file, str(path), split, staging, skip)
        missing = [product for product in required if not any((staging / product).glob("*.tif"))]
        if missing or not any(staging.iterdir()):
            missing_folder = "/".join((split, AOI, *missing[:1]))
            message = f"{path} has no files in {missing_folder}; check that it is the tarball of {split}"
            raise UserError(message, kind="not_found", key=path, value=missing_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_md5(path: Path, expected: str) -> None:
    """Raise a UserError where a file has another MD5 checksum."""
    md5 = hashlib.md5(usedforsecurity=False)
    with progress_bar() as bar, bar.open(path, "rb", description="checking the MD5 checksum") as file:
        for block in iter(partial(file.read, BLOCK), b""):
            md5.update(block)
    if md5.hexdigest() != expected:
        message = f"{path} has the MD5 checksum {md5.hexdigest()}, not {expected}; download it again, or set md5="
        raise UserError(message, kind="wrong_data", key=path, value=md5.hexdigest())


def check_installed(target: Path, products: Collection[str], tiles: int | None) -> None:
    """Raise a UserError where a split's folder lacks one of `products`, or has another number of its images."""
    for product in products:
        images = sum(1 for _ in (target / product).glob("*.tif"))
        if images != (tiles or images) or images == 0:
            number = f" (published: {tiles})" if tiles else ""
            message = (
                f"{target} exists, with {images} images in {product}{number}; move or remove it and run the same "
                "command again, or choose another root="
            )
            raise UserError(message, kind="conflict", key=target / product, value=images)


def contents(folder: Path) -> str:
    """Return the number of files in each subfolder, such as `PAN 3401, SAR-Intensity 3401 files`."""
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    return ", ".join(f"{path.name} {sum(1 for _ in path.iterdir())}" for path in subfolders) + " files"


@contextmanager
def working_folder(root: Path) -> Iterator[Path]:
    """Lock a hidden folder in `root`, on its file system, for unfinished files; remove it if it is empty at the end.

    Raises:
        UserError: another process uses it, or a file is where a folder is needed
    """
    work, parent = root / ".download", existing_folder(root)
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
            for folder in (work, root, *root.absolute().parents):
                if folder.absolute() == parent:
                    break
                folder.rmdir()
