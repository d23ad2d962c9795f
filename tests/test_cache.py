"""What is kept beside the archive saves a second reading, and is never taken for what the files hold now."""

import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import shapely
from helpers.handmade import (
    NORTH,
    OTHER_STRIP,
    SAR_STRIP,
    WEST,
    folder,
    speckle,
    write_labels,
    write_orientations,
    write_tile,
)

import sn6.datasets.headers
import sn6.datasets.labels
from sn6.datasets.archive import Archive
from sn6.datasets.packed_labels import pack
from sn6.errors import UserError

SAR = "SAR-Intensity"
NAMES = [f"{SAR_STRIP}_tile_1", f"{OTHER_STRIP}_tile_2", f"{OTHER_STRIP}_tile_3"]
HOUSE = "POLYGON ((10.25 20, 30 20, 30 40.125, 10 40, 10.25 20))"
COURTYARD = "POLYGON ((1 1, 31 1, 31 31, 1 31, 1 1), (5 5, 9 5, 9 9, 5 9, 5 5), (15 5, 19 5, 19 9, 15 9, 15 5))"
TWO = "MULTIPOLYGON (((40 0, 60 0, 60 20, 40 20, 40 0)), ((0 40, 20 40, 20 60, 0 60, 0 40)))"
ROWS = (
    f'{NAMES[0]},0,"{HOUSE}",5,5,1\n{NAMES[0]},1,"{COURTYARD}",,,\n'
    f'{NAMES[1]},0,"POLYGON EMPTY",,,\n{NAMES[2]},0,"{TWO}",7.5,7,1\n'
)


@pytest.fixture
def root(tmp_path):
    """Three radar tiles side by side: two buildings, none, and one in two parts."""
    for number, name in enumerate(NAMES, start=1):
        place = {"west": WEST + 450 * number}
        write_tile(tmp_path, SAR, speckle(size=16), number, name.rpartition("_tile_")[0], **place)
    write_labels(tmp_path, ROWS)
    write_orientations(tmp_path)
    return tmp_path


def seen(root):
    """The index and the labels of all tiles, as plain values."""
    archive = Archive(root)
    tiles = archive.tiles("train", SAR)
    labels = {tile.image_id: archive.labels(tile) for tile in tiles}
    plain = {
        name: None if one is None else (shapely.to_wkt(one.polygons).tolist(), one.heights)
        for name, one in labels.items()
    }
    return tiles, plain


def assert_same(one, other):
    np.testing.assert_equal(one[1], other[1])  # NaN is NaN
    assert one[0] == other[0]


def refuse_reading(monkeypatch):
    """From here on no header is opened and no CSV read."""

    def opened(*_, **__):
        raise AssertionError("a file was read once more")

    monkeypatch.setattr(sn6.datasets.headers.rasterio, "open", opened)
    monkeypatch.setattr(sn6.datasets.labels, "read_labels", opened)


def test_a_second_start_reads_no_file_again_and_sees_the_same(root, monkeypatch):
    first = seen(root)
    assert [tile.bounds[0] for tile in first[0]] == [WEST + 900, WEST + 1350, WEST + 450]  # by image id
    assert [tile.bounds[3] for tile in first[0]] == [NORTH] * 3
    assert [len(first[1][name][1]) for name in NAMES] == [2, 0, 2]
    refuse_reading(monkeypatch)
    assert_same(seen(root), first)


def test_a_tile_that_moved_went_or_came_is_seen(root):
    seen(root)
    write_tile(root, SAR, speckle(size=17), 1, SAR_STRIP, west=WEST + 4500)
    next((folder(root) / SAR).glob("*tile_3.tif")).unlink()
    write_tile(root, SAR, speckle(size=16), 4, SAR_STRIP, west=WEST + 9000)
    bounds = {tile.image_id: tile.bounds[0] for tile in seen(root)[0]}
    assert bounds == {NAMES[0]: WEST + 4500, NAMES[1]: WEST + 900, f"{SAR_STRIP}_tile_4": WEST + 9000}
    assert seen(root)[0] == seen(root)[0]


@pytest.mark.parametrize("what", ["time", "size"])
def test_a_file_of_another_time_or_size_is_opened_again(root, what, monkeypatch):
    seen(root)
    path = next((folder(root) / SAR).glob("*tile_2.tif"))
    before = path.stat()
    if what == "size":
        with path.open("ab") as file:
            file.write(b"\0")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    opened, rasterio_open = [], sn6.datasets.headers.rasterio.open
    monkeypatch.setattr(
        sn6.datasets.headers.rasterio, "open", lambda path, *a: opened.append(path) or rasterio_open(path, *a)
    )
    seen(root)
    assert opened == [path]


def test_labels_that_changed_are_seen(root):
    seen(root)
    write_labels(root, f'{NAMES[0]},0,"{HOUSE}",9,9,1\n')
    labels = seen(root)[1]
    assert labels[NAMES[0]][1].tolist() == [9.0]
    assert labels[NAMES[1]] is labels[NAMES[2]] is None  # without a row now
    (folder(root) / "SummaryData" / "SN6_Train_AOI_11_Rotterdam_Buildings.csv").unlink()
    assert seen(root)[1] == dict.fromkeys(NAMES)


def test_a_wrong_file_is_told_each_time(root):
    write_tile(root, SAR, speckle(size=16), 2, OTHER_STRIP, crs="EPSG:4326")
    write_labels(root, f'{NAMES[0]},0,"POLYGON ((1 1",5,5,1\n')
    for _ in range(2):
        with pytest.raises(UserError, match=r"tile_2.tif has the CRS EPSG:4326"):
            Archive(root).tiles("train", SAR)
        with pytest.raises(UserError, match=r"Buildings.csv, line 2, tile .*tile_1"):
            Archive(root).labels(Archive(root).tile("train", NAMES[0]))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b'{"a": 1}', b'{"a": [1, 2]}', b'{"a": ["x", 1, 2, 3, 4, 5]}', b"PK\3\4half", "shorter", "npz"],
)
def test_a_kept_file_that_is_broken_or_foreign_is_put_right(root, content, monkeypatch):
    first = seen(root)
    for path in (root / ".sn6").glob("*-train*.[jn]*"):
        whole = path.read_bytes()
        if content == "npz":
            with path.open("wb") as file:
                np.savez(file, made_from=np.array([1, 2]), other=np.zeros(3))
        else:
            path.write_bytes(whole[:-20] if content == "shorter" else content)
    assert_same(seen(root), first)
    refuse_reading(monkeypatch)
    assert_same(seen(root), first)


def test_a_folder_that_cannot_be_written_is_done_without(root, capfd):
    (root / ".sn6").write_text("a file where the folder would be")
    assert_same(seen(root), seen(root))
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in root.iterdir()) == [".sn6", "train"]


def test_several_processes_at_once_see_the_same(root):
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        found = list(pool.map(seen, [root] * 6))
    for one in found:
        assert_same(one, seen(root))
    assert not list((root / ".sn6").glob(".*part*"))


def test_what_an_archive_has_read_does_not_go_to_the_workers(root):
    archive = Archive(root)
    before = len(pickle.dumps(archive))
    tile = archive.tiles("train", SAR)[1]
    labels = archive.labels(tile)
    assert len(pickle.dumps(archive)) == before
    sent = pickle.loads(pickle.dumps(archive)).labels(tile)
    assert shapely.to_wkt(sent.polygons).tolist() == shapely.to_wkt(labels.polygons).tolist()


def test_packed_labels_are_the_labels_to_the_bit(archive_root):
    (path,) = (folder(archive_root) / "SummaryData").glob("*.csv")
    plain = sn6.datasets.labels.read_labels(path)
    packed = pack(plain)
    assert list(packed) == list(plain)
    assert "another" not in packed
    assert sum(len(labels) for labels in plain.values()) > 100
    for image_id, labels in plain.items():
        assert shapely.to_wkb(packed[image_id].polygons).tolist() == shapely.to_wkb(labels.polygons).tolist()
        np.testing.assert_array_equal(packed[image_id].heights, labels.heights)
