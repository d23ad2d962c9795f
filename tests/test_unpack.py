"""Tarballs: unpacked completely, or refused with nothing left behind."""

import gzip
import io
import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest
from helpers.errors import user_error
from helpers.served import archive_files, member, pack

from sn6.acquire import unpack
from sn6.download import download

FILES = archive_files(tiles=1)
BODY = pack(FILES)
TAR = gzip.decompress(BODY)
PLACE = "train/AOI_11_Rotterdam"
PAN = next(name for name in FILES if name.startswith("PAN/"))


def unpack_bytes(folder: Path, body: bytes, split="train") -> dict[str, bytes]:
    """Write a tarball, unpack it as a user does, and return the files of the split by path."""
    tarball = folder / "mine.tar.gz"
    tarball.write_bytes(body)
    download(split, folder / "root", source=str(tarball), md5="unchecked")
    place = folder / "root" / split / "AOI_11_Rotterdam"
    assert tarball.read_bytes() == body
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def assert_nothing_unpacked(folder: Path) -> None:
    assert [path.name for path in folder.rglob("*")] == ["mine.tar.gz"]


@pytest.mark.parametrize("top", ["train/AOI_11_Rotterdam/", "AOI_11_Rotterdam/", "./train/AOI_11_Rotterdam/"])
def test_a_local_tarball_is_unpacked_and_kept(tmp_path, top):
    assert unpack_bytes(tmp_path, pack(FILES, top)) == FILES


def test_folders_may_be_listed_twice_and_other_files_are_ignored(tmp_path):
    folders = (member(PLACE, tarfile.DIRTYPE), member(f"{PLACE}/PAN/", tarfile.DIRTYPE), member("README", size=3))
    assert unpack_bytes(tmp_path, pack(FILES, members=folders * 2)) == FILES


def test_the_test_set_is_unpacked_in_its_own_folder(tmp_path):
    files = archive_files(split="Test_Public")
    body = pack(files, "test_public/AOI_11_Rotterdam/")
    with user_error("wrong_data", key=tmp_path / "mine.tar.gz"):
        unpack_bytes(tmp_path, body)
    assert_nothing_unpacked(tmp_path)
    assert unpack_bytes(tmp_path, body, "test_public") == files


def gnu_sparse(name: str, apparent: int) -> tarfile.TarInfo:
    """Return the header of an old GNU sparse member without data; tarfile reads such headers but cannot write them."""

    class Header(tarfile.TarInfo):
        def tobuf(self, *_, **__) -> bytes:
            header = bytearray(super().tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            header[483:495] = b"%011o\0" % apparent
            header[148:156] = b" " * 8
            header[148:155] = b"%06o\0" % sum(header)
            return bytes(header)

    header = Header(name)
    header.type = tarfile.GNUTYPE_SPARSE
    return header


SPARSE_PAX = {"GNU_sparse_map": "0,1", "GNU_sparse_size": str(10**14), "GNU_sparse_realsize": str(10**14)}
UNSAFE = {
    "parent folder": (member("../evil", size=3),),
    "parent folder from inside": (member(f"{PLACE}/PAN/../../../../evil", size=3),),
    "parent folder with backslashes": (member(f"{PLACE}\\..\\..\\evil", size=3),),
    "absolute": (member("/tmp/sn6_evil", size=3),),
    "drive": (member("C:/evil", size=3),),
    "symbolic link": (member(f"{PLACE}/PAN", tarfile.SYMTYPE, "/tmp"), member(f"{PLACE}/PAN/evil", size=3)),
    "symbolic link inside": (member(f"{PLACE}/PAN/a.tif", tarfile.SYMTYPE, "b.tif"),),
    "symbolic link elsewhere": (member("elsewhere/a", tarfile.SYMTYPE, "/tmp"),),
    "hard link": (member(f"{PLACE}/PAN/a.tif", tarfile.LNKTYPE, "/etc/hostname"),),
    "device": (member(f"{PLACE}/PAN/a.tif", tarfile.CHRTYPE),),
    "block device": (member(f"{PLACE}/PAN/a.tif", tarfile.BLKTYPE),),
    "pipe": (member(f"{PLACE}/PAN/a.tif", tarfile.FIFOTYPE),),
    "sparse, GNU": (gnu_sparse(f"{PLACE}/PAN/a.tif", 10**9),),
    "sparse, PAX": (member(f"{PLACE}/PAN/a.tif", size=1, **SPARSE_PAX),),
    "line feed": (member(f"{PLACE}/PAN/a\nb.tif", size=3),),
    "escape sequence": (member(f"{PLACE}/PAN/\x1b[2Ja.tif", size=3),),
    "right-to-left override": (member(f"{PLACE}/PAN/a\u202eb.tif", size=3),),
    "not UTF-8": (member(f"{PLACE}/PAN/a\udcff.tif", size=3),),
    "deep": (member(PLACE + "/a" * 7, size=3),),
    "long": (member(f"{PLACE}/PAN/{'a' * 252}.tif", size=3),),
    "file for a folder": (member(f"{PLACE}/PAN", size=3),),
    "file for the split": (member(PLACE, size=3),),
    "folder for a file": (member(f"{PLACE}/PAN/a.tif", tarfile.DIRTYPE),),
}
REPEATED = {
    "twice": (member(f"{PLACE}/PAN/a", size=3), member(f"{PLACE}/PAN/a", size=3)),
    "twice, with a dot": (member(f"{PLACE}/PAN/a", size=3), member(f"./{PLACE}//PAN/./a", size=3)),
    "twice, in both places": (member(f"{PLACE}/PAN/a", size=3), member("AOI_11_Rotterdam/PAN/a", size=3)),
    "a file, then a folder": (member(f"{PLACE}/PAN/a", size=3), member(f"{PLACE}/PAN/a", tarfile.DIRTYPE)),
    "a folder, then a file": (member(f"{PLACE}/PAN/a", tarfile.DIRTYPE), member(f"{PLACE}/PAN/a", size=3)),
    "in a file": (member(f"{PLACE}/PAN/a", size=3), member(f"{PLACE}/PAN/a/b", size=3)),
    "around a file": (member(f"{PLACE}/PAN/a/b", size=3), member(f"{PLACE}/PAN/a", size=3)),
}


@pytest.mark.parametrize("unsafe", UNSAFE)
def test_an_unsafe_member_refuses_the_whole_tarball(unsafe, tmp_path):
    members = UNSAFE[unsafe]
    body = pack(FILES, members=members)
    with user_error("wrong_data", key=tmp_path / "mine.tar.gz", value=members[0].name):
        unpack_bytes(tmp_path, body)
    assert_nothing_unpacked(tmp_path)
    assert not Path("/tmp/sn6_evil").exists()


@pytest.mark.parametrize("kind", ["sparse, GNU", "sparse, PAX"])
def test_sparse_members_are_sparse_to_tarfile(kind):
    with tarfile.open(fileobj=io.BytesIO(pack(FILES, members=UNSAFE[kind]))) as tar:
        assert sum(found.issparse() for found in tar) == 1


@pytest.mark.parametrize("repeated", REPEATED)
def test_a_name_that_is_there_twice_refuses_the_whole_tarball(repeated, tmp_path):
    members = REPEATED[repeated]
    with user_error("wrong_data", key=tmp_path / "mine.tar.gz", value=members[-1].name):
        unpack_bytes(tmp_path, pack(FILES, members=members))
    assert_nothing_unpacked(tmp_path)


@pytest.mark.parametrize("place", [PLACE, "elsewhere"])
def test_a_member_larger_than_the_disk_ends_it_before_it_is_written(tmp_path, monkeypatch, place):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 10_000_000))
    written = []
    extract = tarfile.TarFile.extract
    monkeypatch.setattr(
        tarfile.TarFile, "extract", lambda *args, **kw: (written.append(args[1].size), extract(*args, **kw))
    )
    bomb = tuple(member(f"{place}/PAN/{number}.tif", size=4_000_000) for number in range(4))
    with user_error("unwritable", key=tmp_path / "mine.tar.gz", value=bomb[2].name):
        unpack_bytes(tmp_path, pack(FILES, members=bomb))
    assert sum(written) < 10_000_000
    assert_nothing_unpacked(tmp_path)


def repack(change) -> bytes:
    """Return the tarball after `change` of its uncompressed bytes."""
    tar = bytearray(TAR)
    change(tar)
    return gzip.compress(tar, 1)


def break_second_header(tar: bytearray) -> None:
    with tarfile.open(fileobj=io.BytesIO(TAR)) as opened:
        second = opened.getmembers()[1].offset
    tar[second] ^= 1  # without a new checksum


def remove_end(tar: bytearray) -> None:
    del tar[len(tar.rstrip(b"\0")) // 512 * 512 + 512 :]


def append_chain(tar: bytearray) -> None:
    headers = tarfile.TarInfo.create_pax_global_header({"comment": "a"})
    tar[:0] = headers * 900  # tarfile reads each within the one before


BROKEN = {
    "last kilobyte": BODY[:-1000],
    "all but its head": BODY[:100],
    "empty": b"",
    "text": b"not a tarball" * 100,
    "checksum of gzip": BODY[:-8] + bytes(8),
    "checksum after more zeros": gzip.compress(TAR + bytes(500_000))[:-8] + bytes(8),
    "megabytes of zeros": gzip.compress(TAR + bytes(3_000_000)),
    "data after its end": gzip.compress(TAR + b"data"),
    "a header in the middle": repack(break_second_header),
    "no end": repack(remove_end),
    "a long header": pack(FILES, members=(member(f"{PLACE}/PAN/a", comment="a" * 2_000_000),)),
    "a chain of headers": repack(append_chain),
    "an infinite time": pack(FILES, members=(member(f"{PLACE}/PAN/a", mtime="inf"),)),
    "a broken sparse map": pack(FILES, members=(member(f"{PLACE}/PAN/a", GNU_sparse_map="a,b"),)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_tarball_is_refused(broken, tmp_path):
    with user_error("unreadable", key=tmp_path / "mine.tar.gz"):
        unpack_bytes(tmp_path, BROKEN[broken])
    assert_nothing_unpacked(tmp_path)


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_MEMBERS", len(FILES) - 1)
    with user_error("unreadable", key=tmp_path / "mine.tar.gz"):
        unpack_bytes(tmp_path, BODY)
    monkeypatch.setattr(unpack, "MAX_MEMBERS", len(FILES))
    assert unpack_bytes(tmp_path, BODY) == FILES
