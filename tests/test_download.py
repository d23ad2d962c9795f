"""The published archive from a server with faults, from tarballs and from folders: whole in its place, or not there."""

import errno
import gzip
import io
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.served import Cut, Served, Stall, Status, archive_files, md5_of, pack, serve

from sn6.acquire import remote, weights
from sn6.acquire.catalogue import TARBALLS, unpacked_size
from sn6.datasets.archive import Archive
from sn6.download import download
from sn6.errors import UserError

TAR = "/SN6.tar.gz"
FILES = archive_files()
BODY = pack(FILES)  # some 300 kB
MD5 = md5_of(BODY)
PLACE = "train/AOI_11_Rotterdam"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No waiting between tries, but a list of what would have been waited; no proxy on the way."""
    waited: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return waited


@pytest.fixture
def served():
    with serve({TAR: BODY}) as one:
        yield one


def get(root: Path, served: Served, **words) -> None:
    download("train", root, **({"source": served.url + TAR, "md5": MD5} | words))


def below(root: Path) -> dict[str, bytes]:
    """Every file under a folder, by path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def images_and_labels(root: Path) -> dict[str, bytes]:
    """The files of the training set alone: there is nothing else but the card."""
    found = below(root)
    assert all(name.startswith(f"{PLACE}/") for name in found)
    return {name.removeprefix(f"{PLACE}/"): body for name, body in found.items() if name != f"{PLACE}/download.json"}


def interrupt(*_, **__) -> None:
    raise KeyboardInterrupt


def refusal(root: Path, **words) -> str:
    with pytest.raises(UserError) as error:
        download("train", root, **words)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_an_archive_comes_whole_and_the_second_time_nothing_is_asked(served, tmp_path, capsys):
    get(tmp_path / "root", served)
    assert images_and_labels(tmp_path / "root") == FILES
    told = capsys.readouterr().out
    assert f"{len(BODY) / 1000:.1f} kB to download, about" in told
    assert f"free in {tmp_path}" in told
    asked = len(served.asked)
    get(tmp_path / "root", served)
    assert len(served.asked) == asked
    assert "already there and whole" in capsys.readouterr().out


def test_a_broken_connection_is_taken_up_by_range_where_it_broke(served, tmp_path):
    served.faults = [None, Cut(150_000), Cut(50_000)]
    get(tmp_path, served)
    assert served.asked_ranges == [None, None, "bytes=150000-", "bytes=200000-"]
    assert images_and_labels(tmp_path) == FILES


def test_a_server_without_ranges_starts_again_from_the_first_byte(served, tmp_path):
    served.ranges = False
    served.faults = [None, Cut(150_000)]
    get(tmp_path, served)
    assert "bytes=150000-" in served.asked_ranges
    assert images_and_labels(tmp_path) == FILES


def test_another_version_since_the_last_time_starts_again_and_mixes_nothing(served, tmp_path, monkeypatch):
    newer = archive_files(seed=1)
    body = pack(newer)
    served.faults = [None, Cut(150_000)]
    monkeypatch.setattr(remote.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, served)
    served.files[TAR], served.etags[TAR] = body, '"second"'
    served.asked.clear()
    get(tmp_path, served, md5=md5_of(body))
    assert served.asked_ranges == [None, None]
    assert images_and_labels(tmp_path) == newer


def test_another_version_in_the_middle_starts_again(served, tmp_path, monkeypatch):
    newer = archive_files(seed=1)
    body = pack(newer)

    def replaced(_):
        served.files[TAR], served.etags[TAR] = body, '"second"'

    monkeypatch.setattr(remote.time, "sleep", replaced)
    served.faults = [None, Cut(150_000)]
    get(tmp_path, served, md5=md5_of(body))
    assert images_and_labels(tmp_path) == newer


def test_a_wrong_length_ends_after_some_tries_with_nothing_in_place(served, tmp_path, hurried):
    served.claimed = 1000
    with pytest.raises(UserError, match="8 tries in a row brought nothing new") as error:
        get(tmp_path, served)
    assert "\n" not in str(error.value)
    assert hurried == [1, 2, 4, 8, 16, 32, 64]
    assert not (tmp_path / "train").exists()


def test_a_wrong_md5_leaves_nothing_and_tells_both_sums(served, tmp_path):
    wanted = "0123456789abcdef" * 2
    with pytest.raises(UserError) as error:
        get(tmp_path / "root", served, md5=wanted)
    assert MD5 in str(error.value)
    assert wanted in str(error.value)
    assert not (tmp_path / "root").exists()


def test_the_published_md5_is_wanted_when_nothing_else_is_said(served, tmp_path):
    message = refusal(tmp_path / "root", source=served.url + TAR)
    assert "10ca26d2287716e3b6ef0cf0ad9f946e" in message
    assert not (tmp_path / "root").exists()


def test_a_busy_server_is_waited_for_as_it_asks(served, tmp_path, hurried):
    served.faults = [Status(503, "7"), None, Status(503), Cut(100_000), Status(429)]
    get(tmp_path, served)
    assert hurried == [7, 2, 1, 2]
    assert images_and_labels(tmp_path) == FILES


def test_a_server_that_stays_busy_ends_it(served, tmp_path):
    served.faults = [Status(503)] * 100
    assert "503 Service Unavailable" in refusal(tmp_path, source=served.url + TAR)
    assert len(served.asked) == remote.TRIES


def test_what_is_not_there_ends_at_once(served, tmp_path):
    message = refusal(tmp_path / "root", source=served.url + "/none.tar.gz")
    assert "404" in message
    assert len(served.asked) == 1
    assert not (tmp_path / "root").exists()


def test_nobody_there(tmp_path):
    with serve({}) as gone:
        url = gone.url
    assert "the last one the connection failed (NewConnectionError)" in refusal(tmp_path, source=url + TAR)


def test_a_disk_too_small_ends_it_before_a_byte_is_written(served, tmp_path, monkeypatch):
    estimate = unpacked_size(TARBALLS["train"], len(BODY), TARBALLS["train"].folders)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, len(BODY) + estimate - 1))
    with pytest.raises(UserError, match=r"needs .* are free; .*stream=true"):
        get(tmp_path / "root", served)
    assert len(served.asked) == 1
    assert not (tmp_path / "root").exists()
    get(tmp_path / "root", served, stream=True)
    assert images_and_labels(tmp_path / "root") == FILES


def test_the_estimate_is_that_of_uncompressed_pixels():
    a_tile = {
        "SAR-Intensity": 900 * 900 * 4 * 4,
        "PS-RGB": 900 * 900 * 3,
        "PS-RGBNIR": 900 * 900 * 4 * 2,
        "RGBNIR": 450 * 450 * 4 * 2,
        "PAN": 900 * 900 * 2,
    }
    train = TARBALLS["train"]
    assert unpacked_size(train, train.size, train.folders) == 3401 * sum(a_tile.values())
    assert unpacked_size(train, None, ["PAN", "SummaryData"]) == 3401 * a_tile["PAN"]
    assert unpacked_size(train, train.size // 2, ["PS-RGB"]) == pytest.approx(3401 * a_tile["PS-RGB"] / 2)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_stream_that_breaks_goes_on_or_starts_again(served, tmp_path, ranges, monkeypatch):
    def no_tarball(_):
        assert not list(tmp_path.rglob("*.part"))

    monkeypatch.setattr(remote.time, "sleep", no_tarball)
    served.ranges = ranges
    served.faults = [None, Cut(150_000)]
    get(tmp_path, served, stream=True)
    assert served.asked_ranges == [None, None, "bytes=150000-", *([] if ranges else [None])]
    assert images_and_labels(tmp_path) == FILES


def test_a_stream_with_the_wrong_md5_leaves_nothing(served, tmp_path):
    with pytest.raises(UserError, match=MD5):
        get(tmp_path / "root", served, stream=True, md5="0" * 32)
    assert not (tmp_path / "root").exists()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


UNSAFE = {
    "climbs out": (member("../evil", size=3),),
    "climbs out from inside": (member(f"{PLACE}/PAN/../../../../evil", size=3),),
    "climbs out in the manner of Windows": (member(f"{PLACE}\\..\\..\\evil", size=3),),
    "absolute": (member("/tmp/sn6_evil", size=3),),
    "drive": (member("C:/evil", size=3),),
    "symbolic link": (member(f"{PLACE}/PAN", tarfile.SYMTYPE, "/tmp"), member(f"{PLACE}/PAN/evil", size=3)),
    "symbolic link inside": (member(f"{PLACE}/PAN/a.tif", tarfile.SYMTYPE, "b.tif"),),
    "hard link": (member(f"{PLACE}/PAN/a.tif", tarfile.LNKTYPE, "/etc/hostname"),),
    "device": (member(f"{PLACE}/PAN/a.tif", tarfile.CHRTYPE),),
    "block device": (member(f"{PLACE}/PAN/a.tif", tarfile.BLKTYPE),),
    "pipe": (member(f"{PLACE}/PAN/a.tif", tarfile.FIFOTYPE),),
    "not asked for": (member(f"{PLACE}/elsewhere/a", tarfile.SYMTYPE, "/tmp"),),
}


@pytest.mark.parametrize("unsafe", UNSAFE)
def test_an_unsafe_tarball_is_refused_whole(unsafe, tmp_path):
    tarball = tmp_path / "evil.tar.gz"
    tarball.write_bytes(pack(FILES, members=UNSAFE[unsafe]))
    message = refusal(tmp_path / "a" / "b" / "root", source=str(tarball), md5="unchecked")
    assert "refused" in message
    assert repr(UNSAFE[unsafe][0].name) in message
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.tar.gz"]
    assert not Path("/tmp/sn6_evil").exists()


@pytest.mark.parametrize("stream", [True, False])
def test_an_unsafe_tarball_from_a_server_is_not_kept(served, tmp_path, stream):
    body = pack(FILES, members=UNSAFE["climbs out"])
    served.files[TAR] = body
    with pytest.raises(UserError, match="refused"):
        get(tmp_path / "root", served, md5=md5_of(body), stream=stream, keep=not stream)
    assert not list(tmp_path.iterdir())


def test_some_products_and_later_others(served, tmp_path):
    labels = {"geojson_buildings", "SummaryData"}
    get(tmp_path, served, products=["SAR-Intensity"])
    first = images_and_labels(tmp_path)
    assert first == {name: body for name, body in FILES.items() if name.split("/")[0] in {"SAR-Intensity", *labels}}
    asked = len(served.asked)
    get(tmp_path, served, products=["SAR-Intensity"])
    assert len(served.asked) == asked
    get(tmp_path, served, products=["PS-RGB", "SAR-Intensity"])
    assert images_and_labels(tmp_path).keys() - first.keys() == {name for name in FILES if name.startswith("PS-RGB/")}
    get(tmp_path, served)
    assert images_and_labels(tmp_path) == FILES


def test_what_lost_a_file_since_is_not_whole(served, tmp_path):
    get(tmp_path, served)
    next((tmp_path / PLACE / "PAN").iterdir()).unlink()
    with pytest.raises(UserError, match=r"PAN holds 2 files .* not 3 files"):
        get(tmp_path, served)
    shutil.rmtree(tmp_path / PLACE / "PAN")
    get(tmp_path, served)
    assert images_and_labels(tmp_path) == FILES


def test_what_other_programs_add_does_not_matter(served, tmp_path, capsys):
    get(tmp_path, served)
    (tmp_path / PLACE / "PAN" / "tile.tif.aux.xml").write_text("statistics of a viewer")
    capsys.readouterr()
    get(tmp_path, served)
    assert "already there and whole" in capsys.readouterr().out


def test_what_was_unpacked_by_hand_is_left_when_no_tile_lacks(served, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TARBALLS, "train", replace(TARBALLS["train"], tiles=3))
    with tarfile.open(fileobj=io.BytesIO(BODY)) as tar:
        tar.extractall(tmp_path, filter="data")
    get(tmp_path, served)
    assert "already there with as many tiles as are published" in capsys.readouterr().out
    assert served.asked == []
    assert images_and_labels(tmp_path) == FILES


def test_a_disk_that_fills_up_leaves_the_download_and_nothing_half(served, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr(tarfile, "copyfileobj", full)
        with pytest.raises(OSError, match="No space left"):  # which the door tells in one line
            get(tmp_path, served)
    assert not (tmp_path / "train").exists()
    assert not list(tmp_path.rglob("*.tif"))
    served.asked.clear()
    get(tmp_path, served)
    assert served.asked_ranges == [None]
    assert images_and_labels(tmp_path) == FILES


def test_a_kept_tarball_serves_again(served, tmp_path):
    get(tmp_path, served, keep=True, products=["SAR-Intensity"])
    assert (tmp_path / TARBALLS["train"].name).read_bytes() == BODY
    download("train", tmp_path, md5=MD5)
    (tmp_path / TARBALLS["train"].name).unlink()
    assert images_and_labels(tmp_path) == FILES


def test_a_killed_download_goes_on_where_it_was(served, tmp_path):
    served.faults = [None, Stall(131_072)]
    words = ["what=train", f"root={tmp_path}", f"source={served.url}{TAR}", f"md5={MD5}"]
    process = subprocess.Popen([sys.executable, "-m", "sn6.download", *words], stdout=subprocess.DEVNULL)
    try:
        part = tmp_path / ".download" / f"{TARBALLS['train'].name}.part"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size == 131_072):
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "train").exists()
    served.asked.clear()
    get(tmp_path, served)
    assert served.asked_ranges == [None, "bytes=131072-"]
    assert images_and_labels(tmp_path) == FILES


def test_a_stopped_unpacking_needs_no_second_download_and_leaves_nothing(served, tmp_path, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr("sn6.acquire.archive.install", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, served)
    assert [path.name for path in tmp_path.rglob("*") if path.suffix in (".part", ".tif")] == [
        f"{TARBALLS['train'].name}.part"
    ]
    killed = tmp_path / ".download" / "train.unpacking" / "PAN" / "half.tif"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"half")
    served.asked.clear()
    get(tmp_path, served)
    assert served.asked_ranges == [None]  # whether it is still the same file
    assert images_and_labels(tmp_path) == FILES


@pytest.mark.parametrize("top", ["train/AOI_11_Rotterdam/", "AOI_11_Rotterdam/", "./train/AOI_11_Rotterdam/"])
def test_a_local_tarball_is_unpacked_and_stays(tmp_path, top):
    tarball = tmp_path / "mine.tar.gz"
    tarball.write_bytes(pack(FILES, top))
    before = tarball.read_bytes()
    download("train", tmp_path / "root", source=str(tarball), md5="unchecked")
    assert images_and_labels(tmp_path / "root") == FILES
    assert tarball.read_bytes() == before


def test_the_test_set_has_its_own_place_and_tarball(tmp_path):
    files = archive_files(split="Test_Public")
    tarball = tmp_path / "mine.tar.gz"
    tarball.write_bytes(pack(files, "test_public/AOI_11_Rotterdam/"))
    message = refusal(tmp_path / "root", source=str(tarball), md5="unchecked")
    assert "has no train/AOI_11_Rotterdam/" in message
    download("test_public", tmp_path / "root", source=str(tarball), md5="unchecked")
    assert below(tmp_path / "root" / "test_public/AOI_11_Rotterdam").items() >= files.items()


CUT_SHORT = {
    "last kilobyte": BODY[:-1000],
    "all but its head": BODY[:100],
    "empty": b"",
    "text": b"no tarball at all" * 100,
    "checksum of gzip": BODY[:-8] + bytes(8),
    "checksum far behind the last file": gzip.compress(gzip.decompress(BODY) + bytes(3_000_000))[:-8] + bytes(8),
}


@pytest.mark.parametrize("body", CUT_SHORT.values(), ids=CUT_SHORT)
def test_what_is_cut_short_or_no_tarball_is_refused(tmp_path, body):
    tarball = tmp_path / "mine.tar.gz"
    tarball.write_bytes(body)
    message = refusal(tmp_path / "root", source=str(tarball), md5="unchecked")
    assert str(tarball) in message
    assert not (tmp_path / "root").exists()


def test_an_unpacked_folder_is_linked_and_read(archive_root, tmp_path, capsys):
    download("train", tmp_path / "root", source=str(archive_root))
    tiles = Archive(tmp_path / "root").tiles("train", "SAR-Intensity")
    assert [tile.image_id for tile in tiles] == [
        tile.image_id for tile in Archive(archive_root).tiles("train", "SAR-Intensity")
    ]
    assert all(path.is_symlink() for path in (tmp_path / "root" / PLACE).iterdir() if path.is_dir())
    capsys.readouterr()
    download("train", tmp_path / "root", source=str(archive_root / "train"))
    assert "already there and whole" in capsys.readouterr().out
    download("train", archive_root, source=str(archive_root))
    assert "usable as it is" in capsys.readouterr().out


def test_a_folder_without_what_is_asked_for_is_refused(tmp_path):
    for name, body in FILES.items():
        if not name.startswith("PAN/"):
            path = tmp_path / "mine" / "AOI_11_Rotterdam" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    assert "has no PAN/" in refusal(tmp_path / "root", source=str(tmp_path / "mine"), products=["PAN"])
    assert "holds no train/AOI_11_Rotterdam" in refusal(tmp_path / "root", source=str(tmp_path))
    with pytest.raises(UserError, match="SN6_Test_Public"):
        download("test_public", tmp_path / "root", source=str(tmp_path / "mine"))
    download("train", tmp_path / "root", source=str(tmp_path / "mine" / "AOI_11_Rotterdam"), products=["PS-RGB"])
    linked = {path.name for path in (tmp_path / "root" / PLACE).iterdir() if path.is_dir()}
    assert linked == {"PS-RGB", "geojson_buildings", "SummaryData"}


def test_another_archive_in_the_place_is_left_alone(archive_root, served):
    before = sorted(archive_root.rglob("*"))
    with pytest.raises(UserError, match=r"24 files .* not the 3401 files that are published"):
        get(archive_root, served)
    assert sorted(archive_root.rglob("*")) == before
    assert served.asked == []


def test_one_at_a_time(served, tmp_path):
    (tmp_path / ".download").mkdir()
    with FileLock(tmp_path / ".download" / "lock"), pytest.raises(UserError, match=r"another sn6\.download works"):
        get(tmp_path, served)


LIST = (
    """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>"""
)
ENTRY = "<Contents><Key>spacenet-model-weights/spacenet-6/baseline/{}</Key><Size>{}</Size></Contents>"


def test_the_weights_of_the_baseline_are_what_the_bucket_lists(tmp_path, monkeypatch, capsys):
    prefix = "/spacenet-model-weights/spacenet-6/baseline/"
    first, second = b"a" * 1000, b"b" * 200_000
    asked = "/?list-type=2&prefix=spacenet-model-weights%2Fspacenet-6%2Fbaseline%2F"
    pages = {
        asked: LIST.format(
            ENTRY.format("", 0)
            + ENTRY.format("../evil", 1)
            + ENTRY.format("sar.pth", len(first))
            + "<IsTruncated>true</IsTruncated><NextContinuationToken>a+b=</NextContinuationToken>"
        ),
        asked + "&continuation-token=a%2Bb%3D": LIST.format(ENTRY.format("optical/best.pth", len(second))),
    }
    files = {path: page.encode() for path, page in pages.items()}
    with serve(files | {prefix + "sar.pth": first, prefix + "optical/best.pth": second}) as bucket:
        monkeypatch.setattr(weights, "BUCKET", bucket.url)
        bucket.faults = [None, None, None, None, None, Cut(100_000)]
        download("weights/baseline", tmp_path)
        assert below(tmp_path) == {"weights/baseline/sar.pth": first, "weights/baseline/optical/best.pth": second}
        assert bucket.asked[-1] == (prefix + "optical/best.pth", "bytes=100000-")
        bucket.asked.clear()
        download("weights/baseline", tmp_path)
        assert [path for path, _ in bucket.asked] == list(pages)
        bucket.files[asked] = LIST.format("").encode()
        with pytest.raises(UserError, match="has nothing under"):
            download("weights/baseline", tmp_path)
    assert "no checksum is published" in capsys.readouterr().out


def test_weights_from_an_address_or_a_file(tmp_path, capsys):
    with serve({"/a%20b/TernausNet.pt": b"w" * 5000, "/page": b"<html>"}) as host:
        download("weights/ternausnet", tmp_path, source=host.url + "/a%20b/TernausNet.pt")
        assert below(tmp_path) == {"weights/ternausnet/TernausNet.pt": b"w" * 5000}
        host.headers = {"Content-Type": "text/html; charset=utf-8"}
        with pytest.raises(UserError, match="a web page and not a file"):
            download("weights/ternausnet", tmp_path, source=host.url + "/page")
    mine = tmp_path / "weights/ternausnet/TernausNet.pt"
    capsys.readouterr()
    download("weights/ternausnet", tmp_path / "other", source=str(mine))
    assert f"model.weights={mine}" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"what": []}, "names nothing"),
        ({"what": "weights/ternausnet"}, "no address that is sure"),
        ({"what": ["train", "test_public"], "source": "x.tar.gz"}, "one by one"),
        ({"what": "train", "products": []}, "names no image"),
        ({"what": "test_public", "products": ["PS-RGB"]}, "test_public has SAR-Intensity alone"),
        ({"what": "train", "stream": True, "keep": True}, "choose one of them"),
        ({"what": "weights/baseline", "products": ["PAN"]}, "leave them out for weights"),
        ({"what": "train", "md5": "abc"}, "32 hex digits"),
        ({"what": "train", "source": "nowhere.tar.gz"}, "no file, no folder and no address"),
        ({"what": "train", "source": "s3://bucket/x.tar.gz"}, "does not do as an address"),
        ({"what": "weights/baseline", "source": "nowhere.pth"}, "no file and no address"),
    ],
)
def test_words_that_do_not_do(words, says, tmp_path):
    with pytest.raises(UserError, match=says) as error:
        download(root=tmp_path / "root", **words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "root").exists()
