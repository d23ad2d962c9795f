"""Unpack a tarball of SpaceNet 6, or refuse it."""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import AOI, PRODUCTS
from sn6.errors import UserError, first_line

BLOCK = 1 << 16  # bytes that are read at a time
MAX_HEADERS = 1 << 20  # bytes before a member and after the last one
MAX_MEMBERS = 200_000  # the training set has about 20,000
MAX_DEPTH = 8  # parts of a name; published names have 4
MAX_PART = 255  # bytes of a part of a name, the limit of file systems
SUFFIXES = (".tif", ".geojson", ".csv", ".txt")  # of published files
BROKEN = (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError, OverflowError, RecursionError)


class BoundedGzip(gzip.GzipFile):
    """Decompress a tarball up to a limit, which moves with its members, and not past its end.

    tarfile alone reads a header of any length into memory, and skips any size that a member claims.
    """

    limit = MAX_HEADERS
    may_end = False

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        data = super().read(size)
        if self.tell() > self.limit + BLOCK:  # tarfile reads ahead by one block
            raise tarfile.ReadError("too many bytes outside of its files")
        if not data and not self.may_end:
            raise EOFError("it ends too early")
        return data


def unpack(file: IO[bytes], name: str, split: Split, folder: Path) -> None:
    """Unpack the files under `<split>/<AOI>/` or `<AOI>/` in a tarball.

    Args:
        file: .tar.gz to read
        name: its name, for messages
        split: split that it should contain
        folder: empty folder to write to; its contents are unusable after an error

    Raises:
        UserError: the tarball is broken, truncated or too large for the disk, or a member is unsafe or repeated
    """
    try:
        with BoundedGzip(fileobj=file) as plain, tarfile.open(fileobj=plain, mode="r|", bufsize=BLOCK) as tar:
            extract(tar, plain, name, split, folder)
    except BROKEN as error:
        message = f"{name} is broken, truncated or not a .tar.gz ({first_line(error)}); download it again"
        raise UserError(message, kind="unreadable", key=name) from None


def extract(tar: tarfile.TarFile, plain: BoundedGzip, name: str, split: Split, folder: Path) -> None:
    """Extract the members of a tarball one by one, each after its check."""
    free = shutil.disk_usage(folder).free
    seen = {PurePosixPath(path): True for path in (".", *PRODUCTS, "geojson_buildings", "SummaryData")}
    for number, member in enumerate(tar):
        if number == MAX_MEMBERS:
            raise tarfile.ReadError(f"more than {MAX_MEMBERS} files")
        path = path_in_split(member.name, split)
        reason = unsafe_member(member) or (path and conflict(path, member.isdir(), seen))
        if reason:
            message = f"{name} is refused: {member.name[:200]!r} in it {reason}; nothing was unpacked: use another file"
            raise UserError(message, kind="wrong_data", key=name, value=member.name)
        plain.limit = member.offset_data + member.size + MAX_HEADERS
        free -= member.size
        if free < 0:
            message = f"{name} needs more disk space than is free in {folder.parent}; free some space"
            raise UserError(message, kind="unwritable", key=name, value=member.name)
        if path and path.parts:
            tar.extract(member.replace(name=str(path), deep=False), folder, filter="data")
    plain.may_end = True
    while tar.fileobj and (rest := tar.fileobj.read(BLOCK)):  # to the end, where the checksum of gzip is
        if rest.strip(b"\0"):
            raise tarfile.ReadError("data after its end")


def unsafe_member(member: tarfile.TarInfo) -> str | None:
    """Return why a member must not be unpacked, None where it may."""
    if not (member.isreg() or member.isdir()):
        return "is neither a file nor a folder"
    if member.issparse() or member.size < 0:
        return "is a sparse file"
    return unsafe_name(member.name)


def unsafe_name(name: str) -> str | None:
    """Return why a name must not be written under a folder, None where it may."""
    parts = PurePosixPath(name).parts
    if not name.isprintable() or "\\" in name:
        return "has a control character or a backslash in its name"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "has an absolute path"
    if ".." in parts:
        return "leaves its folder"
    if len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART for part in parts):
        return "has too long a path"
    return None


def conflict(path: PurePosixPath, is_folder: bool, seen: dict[PurePosixPath, bool]) -> str | None:
    """Return why a member cannot be beside the `seen` ones (path → whether it is a folder), else add it to them."""
    if is_folder and path.suffix in SUFFIXES:
        return "is a folder where a file belongs"
    if not all(seen.setdefault(parent, True) for parent in path.parents):
        return "is inside a file"
    if path in seen and not (is_folder and seen[path]):
        return "is there twice, or is a file where a folder belongs"
    seen[path] = is_folder
    return None


def path_in_split(name: str, split: Split) -> PurePosixPath | None:
    """Return `PAN/x.tif` for `train/<AOI>/PAN/x.tif` or `<AOI>/PAN/x.tif`, None for others."""
    path = PurePosixPath(name)
    for top in (PurePosixPath(split, AOI), PurePosixPath(AOI)):
        if path.is_relative_to(top):
            return path.relative_to(top)
    return None
