"""One file from a server with faults: the same bytes, or an error."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import user_error
from helpers.served import Cut, Endless, Served, Status, Trickle, serve

from sn6.acquire import transfer
from sn6.acquire.transfer import download_file, finish

BODY = np.random.default_rng(0).bytes(300_000)
NEWER = np.random.default_rng(1).bytes(300_000)
MAX_BYTES = 1_000_000


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between tries instead of waiting, and use no proxy."""
    seconds: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", seconds.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return seconds


@pytest.fixture
def served():
    with serve({"/file": BODY, "/mirror": NEWER}) as server:
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def get(served: Served, part: Path, path="/file", body=BODY) -> None:
    """Download a file and compare it."""
    download_file(served.url + path, part, MAX_BYTES)
    assert part.read_bytes() == body


def stop(served: Served, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a download after half of the file."""

    def interrupt(_):
        raise KeyboardInterrupt

    served.faults = [Cut(150_000)]
    with monkeypatch.context() as patched:
        patched.setattr(transfer.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(served, part)
    served.requests.clear()


def test_a_file_is_downloaded_once_and_moved_to_its_place(served, part, tmp_path):
    get(served, part)
    get(served, part)
    assert served.requested_ranges == [None]
    finish(part, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == BODY
    get(served, part)
    finish(part, None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_broken_connection_is_resumed_where_it_broke(served, part):
    served.faults = [Cut(150_000), Cut(50_000)]
    get(served, part)
    assert served.requested_ranges == [None, "bytes=150000-", "bytes=200000-"]


def test_a_stopped_download_is_resumed(served, part, monkeypatch):
    stop(served, part, monkeypatch)
    get(served, part)
    assert served.requested_ranges == ["bytes=150000-"]


def test_a_server_without_ranges_starts_again_from_the_first_byte(served, part):
    served.ranges = False
    served.faults = [Cut(150_000)]
    get(served, part)
    assert served.requested_ranges == [None, "bytes=150000-", None]


def test_another_version_after_a_stop_starts_again(served, part, monkeypatch):
    stop(served, part, monkeypatch)
    served.files["/file"], served.etags["/file"] = NEWER, '"second"'
    get(served, part, body=NEWER)
    assert served.requested_ranges == ["bytes=150000-", None]


def test_another_version_in_the_middle_starts_again(served, part, monkeypatch):
    def change(_):
        served.files["/file"], served.etags["/file"] = NEWER, '"second"'

    monkeypatch.setattr(transfer.time, "sleep", change)
    served.faults = [Cut(150_000)]
    get(served, part, body=NEWER)
    assert served.requested_ranges == [None, "bytes=150000-", None]


def test_a_shorter_version_after_a_stop_starts_again(served, part, monkeypatch):
    stop(served, part, monkeypatch)
    served.files["/file"], served.faults = BODY[:1000], [Status(416)]
    get(served, part, body=BODY[:1000])
    assert served.requested_ranges == ["bytes=150000-", None]


def test_another_address_starts_again(served, part, monkeypatch):
    stop(served, part, monkeypatch)
    get(served, part, "/mirror", NEWER)
    assert served.requests == [("/mirror", None)]


def test_a_body_that_is_too_short_ends_after_some_tries(served, part, waited):
    served.missing = 1000
    with user_error("unavailable", key=f"{served.url}/file"):
        get(served, part)
    assert waited == [1, 2, 4, 8, 16, 32, 64]


def test_a_busy_server_is_tried_again(served, part, waited):
    served.faults = [Status(503), Status(429), Cut(100_000), Status(503)]
    get(served, part)
    assert waited == [1, 2, 1, 2]  # from the first again after new data


def test_a_server_that_stays_busy_ends_it(served, part):
    served.faults = [Status(503)] * 100
    with user_error("unavailable", key=f"{served.url}/file"):
        get(served, part)
    assert len(served.requests) == transfer.TRIES


@pytest.mark.parametrize(
    ("fault", "kind"), [(None, "not_found"), (Status(403), "unavailable"), (Status(304), "unavailable")]
)
def test_a_refusal_ends_it_at_once(served, part, fault, kind):
    served.faults = [fault]
    with user_error(kind, key=f"{served.url}/missing"):
        get(served, part, "/missing")
    assert len(served.requests) == 1
    assert not part.exists()


def test_no_server(part):
    with serve({}) as server:
        url = server.url
    with user_error("unavailable", key=url):
        download_file(url, part, MAX_BYTES)


@pytest.mark.parametrize("url", ["s3://bucket/file", "http://", "nothing"])
def test_an_invalid_address(part, url):
    with user_error("unavailable", key=url):
        download_file(url, part, MAX_BYTES)


def test_a_web_page_is_not_a_file(served, part):
    served.headers = {"Content-Type": "text/html; charset=utf-8"}
    with user_error("wrong_data", key=f"{served.url}/file"):
        get(served, part)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_without_an_end_is_stopped(served, part, chunked):
    served.faults = [Endless(chunked)]
    with user_error("wrong_data", key=f"{served.url}/file"):
        get(served, part)
    assert part.stat().st_size <= MAX_BYTES
    get(served, part)


def test_a_body_longer_than_announced_is_stopped(served, part):
    served.faults = [Cut(150_000), Endless(chunked=True)]
    with user_error("wrong_data", key=f"{served.url}/file"):
        get(served, part)
    assert part.stat().st_size <= len(BODY)


def test_an_announced_size_that_is_too_large_is_refused(served, part):
    with user_error("wrong_data", key=f"{served.url}/file", value=len(BODY)):
        download_file(f"{served.url}/file", part, len(BODY) - 1)
    assert not part.exists()


def test_a_trickle_counts_as_a_broken_connection(served, part, monkeypatch):
    monkeypatch.setattr(transfer, "WINDOW", 0.2)
    served.faults = [Trickle(150_000)]
    get(served, part)
    first, second = served.requested_ranges
    assert first is None
    assert 150_000 < int(second.removeprefix("bytes=").removesuffix("-")) < 151_000


def test_nothing_but_trickles_ends_it(served, part, monkeypatch):
    monkeypatch.setattr(transfer, "WINDOW", 0.05)
    served.faults = [Trickle(0)] * 100
    with user_error("unavailable", key=f"{served.url}/file"):
        get(served, part)
    assert len(served.requests) == transfer.TRIES


def test_a_disk_that_is_too_small_ends_it_before_a_byte_is_written(served, part, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = 3 * len(BODY) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free))
    with user_error("unwritable", key=part.parent, value=free):
        download_file(f"{served.url}/file", part, MAX_BYTES, expansion=2.0)
    assert not part.exists()
    free += 1
    download_file(f"{served.url}/file", part, MAX_BYTES, expansion=2.0)
