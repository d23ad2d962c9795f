"""A tarball of SpaceNet 6 unpacked from a stream of bytes, or refused whole."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sn6.datasets.layout import AOI, Split
from sn6.errors import UserError, first_line

UNCHECKED = "unchecked"  # in the place of a sum
COPY = 1 << 20  # bytes at a time
KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class Refused(UserError):
    """The tarball is not what was wanted, or not safe: not worth keeping."""


class Summed(io.RawIOBase):
    """A stream of pieces as a file that can be read once, with the md5 of what was read.

    Args:
        pieces: of any length
        report: is told how many bytes were read
    """

    def __init__(self, pieces: Iterable[bytes], report: Callable[[int], None]) -> None:
        self.pieces = iter(pieces)
        self.rest = memoryview(b"")
        self.report = report
        self.count = 0
        self.md5 = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self.rest:
            piece = next(self.pieces, b"")
            self.md5.update(piece)
            self.count += len(piece)
            self.report(self.count)
            self.rest = memoryview(piece)
        size = min(len(buffer), len(self.rest))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size

    def finish(self) -> str:
        """Reads what is left; gives the sum of all."""
        while self.read(COPY):
            pass
        return self.md5.hexdigest()


def unpack(
    pieces: Iterable[bytes],
    name: str,
    split: Split,
    into: Path,
    leave_out: Collection[str],
    md5: str,
    report: Callable[[int], None],
) -> None:
    """Unpacks the split's folder of a tarball that begins with `train/AOI_11_Rotterdam/` or `AOI_11_Rotterdam/`.

    Args:
        pieces: of the .tar.gz, from its first byte
        name: of the tarball, for messages
        split: that it should hold
        into: an empty folder, which takes what lies under `AOI_11_Rotterdam/`; where anything is wrong, what was
            unpacked until then lies in it and is not to be used
        leave_out: folders under `AOI_11_Rotterdam/` that are not wanted
        md5: that the bytes must have, or "unchecked"
        report: is told how many bytes were read

    Raises:
        Refused: another md5, no tarball, cut short, without the split's folder, or with a link, a device or a path
            that leads elsewhere
    """
    stream = Summed(pieces, report)
    try:
        found = extract_all(stream, name, split, into, leave_out)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise Refused(f"{name} is broken, cut short or no .tar.gz ({first_line(error)}); fetch it again") from None
    found_sum = stream.finish()
    if md5 not in (UNCHECKED, found_sum):
        raise Refused(f"{name} has the md5 {found_sum}, not {md5}; nothing of it was unpacked, fetch it again")
    if not found:
        raise Refused(f"{name} has no {split}/{AOI}/; check that it is the tarball of {split}")


def extract_all(stream: Summed, name: str, split: Split, into: Path, leave_out: Collection[str]) -> int:
    """Unpacks what is wanted; gives the number of files under the split's folder.

    Raises:
        Refused: a member that no tarball of images should have
    """
    found = 0
    with (
        gzip.GzipFile(fileobj=io.BufferedReader(stream, COPY)) as plain,
        tarfile.open(fileobj=plain, mode="r|", bufsize=COPY) as tar,
    ):
        for member in tar:
            if reason := unsafe(member):
                raise Refused(f"{name} is refused: {member.name!r} in it {reason}; nothing of it was unpacked")
            inside = below_split(member.name, split)
            if inside is None or not inside.parts:
                continue
            found += member.isreg()
            if inside.parts[0] not in leave_out:
                tar.extract(member.replace(name=str(inside), deep=False), into, filter="data")
        while plain.read(COPY):  # to the end, where the checksum of gzip lies
            pass
    return found


def unsafe(member: tarfile.TarInfo) -> str | None:
    """Why a member must not be unpacked; None where it may."""
    if not (member.isreg() or member.isdir()):
        return f"is {KINDS.get(member.type, 'neither file nor folder')}"
    return strays(member.name)


def strays(name: str) -> str | None:
    """Why a name must not be written under a folder of ours; None where it may."""
    path = PureWindowsPath(name)  # takes / and \ for separators
    if path.drive or path.root:
        return "is an absolute path"
    if ".." in path.parts:
        return "climbs out of its folder"
    return None


def below_split(name: str, split: Split) -> PurePosixPath | None:
    """`train/AOI_11_Rotterdam/PAN/x.tif` or `AOI_11_Rotterdam/PAN/x.tif` → `PAN/x.tif`; None for other places."""
    path = PurePosixPath(name)
    for top in (PurePosixPath(split, AOI), PurePosixPath(AOI)):
        if path.is_relative_to(top):
            return path.relative_to(top)
    return None
