"""The published archive and weights from a server with faults: complete in their place, or absent."""

import errno
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.commands import assert_fails
from helpers.errors import user_error
from helpers.served import Endless, Served, Stall, archive_files, files_below, md5_of, member, pack, serve

from sn6.acquire.catalogue import TARBALLS
from sn6.download import download

TAR = "/SN6.tar.gz"
FILES = archive_files()
BODY = pack(FILES)  # some 300 kB
MD5 = md5_of(BODY)
PLACE = "train/AOI_11_Rotterdam"
NAME = TARBALLS["train"].name


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def served():
    with serve({TAR: BODY}) as server:
        yield server


def get(root: Path, served: Served, **options) -> None:
    """Download the training set from the server."""
    download("train", root, **({"source": served.url + TAR, "md5": MD5} | options))


def assert_complete(root: Path, files=FILES) -> None:
    """Assert that the training set is there, and nothing else."""
    assert files_below(root) == {f"{PLACE}/{name}": body for name, body in files.items()}


def interrupt(*_, **__) -> None:
    raise KeyboardInterrupt


def test_an_archive_is_downloaded_once(served, tmp_path, capsys):
    get(tmp_path / "root", served)
    assert_complete(tmp_path / "root")
    out = capsys.readouterr().out
    assert f"{len(BODY) / 1000:.1f} kB" in out
    assert "python -m sn6.check" in out
    get(tmp_path / "root", served)
    assert served.requested_ranges == [None]
    assert_complete(tmp_path / "root")


@pytest.mark.parametrize("md5", ["0123456789abcdef" * 2, "published"])
def test_a_wrong_md5_leaves_nothing(served, tmp_path, md5):
    with user_error("wrong_data", value=MD5) as caught:
        get(tmp_path / "root", served, md5=md5)
    assert (TARBALLS["train"].md5 if md5 == "published" else md5) in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_an_unsafe_tarball_is_not_kept(served, tmp_path):
    body = served.files[TAR] = pack(FILES, members=(member("../evil", size=3),))
    with user_error("wrong_data", value="../evil"):
        get(tmp_path / "root", served, md5=md5_of(body), keep=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", [None, Endless(chunked=True)])
def test_a_file_of_more_than_twice_the_published_size_is_not_kept(served, tmp_path, monkeypatch, fault):
    monkeypatch.setitem(TARBALLS, "train", TARBALLS["train"]._replace(size=len(BODY) // 2 - 1))
    served.faults = [fault]
    with user_error("wrong_data", key=served.url + TAR):
        get(tmp_path / "root", served)
    assert not (tmp_path / "root").exists()


def test_a_disk_that_is_too_small_ends_it_before_a_byte_is_written(served, tmp_path, monkeypatch):
    train = TARBALLS["train"]
    needed = len(BODY) * (1 + train.unpacked / train.size)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(needed)))
    with user_error("unwritable", value=int(needed)):
        get(tmp_path / "root", served)
    assert not (tmp_path / "root").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(needed) + 1))
    get(tmp_path / "root", served)


def test_the_unpacked_size_is_that_of_uncompressed_pixels():
    sar, others = 900 * 900 * 4 * 4, 900 * 900 * (3 + 4 * 2 + 2) + 450 * 450 * 4 * 2
    assert TARBALLS["train"].unpacked == pytest.approx(3401 * (sar + others), rel=1e-3)
    assert TARBALLS["test_public"].unpacked == pytest.approx(2061 * sar, rel=1e-3)


def test_a_disk_that_fills_up_leaves_the_download_and_no_images(served, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr(tarfile, "copyfileobj", full)
        with pytest.raises(OSError, match="No space left"):  # one line for the user by sn6.errors
            get(tmp_path, served)
    assert not (tmp_path / "train").exists()
    assert not list(tmp_path.rglob("*.tif"))
    get(tmp_path, served)
    assert served.requested_ranges == [None]
    assert_complete(tmp_path)


def test_a_stop_while_unpacking_needs_no_second_download(served, tmp_path, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(tarfile.TarFile, "extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, served)
    assert set(files_below(tmp_path)) == {f".download/{NAME}.part", f".download/{NAME}.part.version"}
    killed = tmp_path / ".download" / "train.unpacking" / "PAN" / "half.tif"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"half")
    get(tmp_path, served)
    assert served.requested_ranges == [None]
    assert_complete(tmp_path)


def test_a_killed_download_is_resumed(served, tmp_path):
    served.faults = [Stall(131_072)]
    overrides = ["what=train", f"root={tmp_path}", f"source={served.url}{TAR}", f"md5={MD5}"]
    process = subprocess.Popen([sys.executable, "-m", "sn6.download", *overrides], stdout=subprocess.DEVNULL)
    part = tmp_path / ".download" / f"{NAME}.part"
    try:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 100_000):
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "train").exists()
    size = part.stat().st_size
    get(tmp_path, served)
    assert served.requested_ranges == [None, f"bytes={size}-"]
    assert_complete(tmp_path)


def test_a_kept_tarball_is_a_source(served, tmp_path):
    get(tmp_path, served, keep=True)
    kept = tmp_path / NAME
    assert kept.read_bytes() == BODY
    shutil.rmtree(tmp_path / "train")
    get(tmp_path, served, source=str(kept))
    kept.unlink()
    assert served.requested_ranges == [None]
    assert_complete(tmp_path)


def test_another_archive_in_the_place_is_left_alone(served, tmp_path):
    get(tmp_path, served)
    with user_error("conflict", key=tmp_path / PLACE, value=3):  # not the 3401 published
        download("train", tmp_path)
    shutil.rmtree(tmp_path / PLACE / "SAR-Intensity")
    with user_error("conflict", key=tmp_path / PLACE, value=0):
        get(tmp_path, served)
    assert_complete(tmp_path, {name: body for name, body in FILES.items() if not name.startswith("SAR-")})


@pytest.mark.parametrize("place", [".", "train", PLACE, ".download"])
def test_a_file_in_place_of_a_folder(served, tmp_path, place):
    path = tmp_path / "root" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    with user_error("conflict" if place == PLACE else "unwritable"):
        get(tmp_path / "root", served)
    assert served.requests == []
    assert path.read_text() == "a file"


def test_one_process_at_a_time(served, tmp_path):
    (tmp_path / ".download").mkdir()
    with FileLock(tmp_path / ".download" / "lock"), user_error("conflict", key="root", value=tmp_path):
        get(tmp_path, served)


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (["what=[]"], "invalid_value", "what"),
        (["what=weights/ternausnet"], "missing_value", "source"),
        (["what=[train,test_public]", "source=x.tar.gz"], "conflict", "source"),
        (["what=weights/baseline", "keep=true"], "conflict", "what"),
        (["what=train", "md5=abc"], "invalid_value", "md5"),
        (["what=train", "source=nowhere.tar.gz"], "not_found", "source"),
        (["what=train", "source=."], "wrong_data", "source"),
        (["what=train", "source=s3://bucket/x.tar.gz"], "unavailable", "s3://bucket/x.tar.gz"),
        (["what=weights/baseline", "source=nowhere.pth"], "not_found", "source"),
    ],
)
def test_invalid_options(overrides, kind, key, tmp_path, sn6_command):
    assert_fails(sn6_command("download", f"root={tmp_path / 'root'}", *overrides), kind, key)
    assert not (tmp_path / "root").exists()
