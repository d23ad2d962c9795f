"""The cache of index and labels saves reading files again, and is never used for files that have changed."""

import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import shapely
from helpers.errors import user_error
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
from sn6.datasets.cache import image_fingerprint
from sn6.datasets.packed_labels import pack
from sn6.datasets.spacenet6 import SpaceNet6, tile_path

SAR = "SAR-Intensity"
NAMES = [f"{SAR_STRIP}_tile_1", f"{OTHER_STRIP}_tile_2", f"{OTHER_STRIP}_tile_3"]
BUILDING = "POLYGON ((10.25 20, 30 20, 30 40.125, 10 40, 10.25 20))"
COURTYARD = "POLYGON ((1 1, 31 1, 31 31, 1 31, 1 1), (5 5, 9 5, 9 9, 5 9, 5 5), (15 5, 19 5, 19 9, 15 9, 15 5))"
TWO = "MULTIPOLYGON (((40 0, 60 0, 60 20, 40 20, 40 0)), ((0 40, 20 40, 20 60, 0 60, 0 40)))"
ROWS = (
    f'{NAMES[0]},0,"{BUILDING}",5,5,1\n{NAMES[0]},1,"{COURTYARD}",,,\n'
    f'{NAMES[1]},0,"POLYGON EMPTY",,,\n{NAMES[2]},0,"{TWO}",7.5,7,1\n'
)


@pytest.fixture
def root(tmp_path):
    """Write three SAR tiles side by side: with two buildings, none, and one in two parts."""
    for number, name in enumerate(NAMES, start=1):
        bounds = {"west": WEST + 450 * number}
        write_tile(tmp_path, SAR, speckle(size=16), number, name.rpartition("_tile_")[0], **bounds)
    write_labels(tmp_path, ROWS)
    write_orientations(tmp_path)
    return tmp_path


def read_all(root):
    """Read the index and the labels of all tiles as comparable values."""
    archive = SpaceNet6(root)
    tiles = archive.tiles("train", SAR)
    labels = {tile.image_id: archive.labels(tile) for tile in tiles}
    values = {
        name: None if one is None else (shapely.to_wkt(one.polygons).tolist(), one.heights)
        for name, one in labels.items()
    }
    return tiles, values


def assert_same(one, other):
    np.testing.assert_equal(one[1], other[1])  # treats NaN as equal
    assert one[0] == other[0]


def forbid_reading(monkeypatch):
    """Make the test fail if a header is opened or a CSV is read after this call."""

    def fail(*_, **__):
        raise AssertionError("a file was read again")

    monkeypatch.setattr(sn6.datasets.headers.rasterio, "open", fail)
    monkeypatch.setattr(sn6.datasets.labels, "read_labels", fail)


def test_a_second_start_reads_no_file_and_returns_the_same(root, monkeypatch):
    first = read_all(root)
    assert [tile.bounds[0] for tile in first[0]] == [WEST + 900, WEST + 1350, WEST + 450]  # by image id
    assert [tile.bounds[3] for tile in first[0]] == [NORTH] * 3
    assert [len(first[1][name][1]) for name in NAMES] == [2, 0, 2]
    forbid_reading(monkeypatch)
    assert_same(read_all(root), first)


def test_moved_removed_and_new_tiles_are_noticed(root):
    read_all(root)
    write_tile(root, SAR, speckle(size=17), 1, SAR_STRIP, west=WEST + 4500)
    next((folder(root) / SAR).glob("*tile_3.tif")).unlink()
    write_tile(root, SAR, speckle(size=16), 4, SAR_STRIP, west=WEST + 9000)
    bounds = {tile.image_id: tile.bounds[0] for tile in read_all(root)[0]}
    assert bounds == {NAMES[0]: WEST + 4500, NAMES[1]: WEST + 900, f"{SAR_STRIP}_tile_4": WEST + 9000}
    assert read_all(root)[0] == read_all(root)[0]


@pytest.mark.parametrize("change", ["time", "size"])
def test_a_file_with_another_time_or_size_is_opened_again(root, change, monkeypatch):
    read_all(root)
    path = next((folder(root) / SAR).glob("*tile_2.tif"))
    before = path.stat()
    if change == "size":
        with path.open("ab") as file:
            file.write(b"\0")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    opened, rasterio_open = [], sn6.datasets.headers.rasterio.open
    monkeypatch.setattr(
        sn6.datasets.headers.rasterio, "open", lambda path, **k: opened.append(path) or rasterio_open(path, **k)
    )
    read_all(root)
    assert opened == [path]


@pytest.mark.parametrize("suffix", [".aux.xml", ".msk"])
def test_a_sidecar_file_that_comes_changes_or_goes_is_noticed(root, suffix):
    path = tile_path(root, "train", SAR, NAMES[1])
    sidecar = path.with_name(f"{path.name}{suffix}")
    seen = {image_fingerprint(path)}
    sidecar.write_text("one")
    seen.add(image_fingerprint(path))
    os.utime(sidecar, ns=(0, 1))
    seen.add(image_fingerprint(path))
    sidecar.write_text("three")
    os.utime(sidecar, ns=(0, 1))
    seen.add(image_fingerprint(path))
    assert len(seen) == 4
    sidecar.unlink()
    assert image_fingerprint(path) in seen


def test_an_index_that_was_made_before_pixel_sizes_were_compared_is_not_used(root):
    tiles = read_all(root)[0]
    cache = root / ".sn6" / f"index-train-{SAR}.json"
    table = {}
    for tile in tiles:
        status = tile_path(root, "train", SAR, tile.image_id).stat()
        west, *others = tile.bounds
        table[tile.image_id] = [status.st_size, status.st_mtime_ns, west + 9, *others]
    cache.write_text(json.dumps(table))
    assert read_all(root)[0] == tiles


def test_changed_labels_are_noticed(root):
    read_all(root)
    write_labels(root, f'{NAMES[0]},0,"{BUILDING}",9,9,1\n')
    labels = read_all(root)[1]
    assert labels[NAMES[0]][1].tolist() == [9.0]
    assert labels[NAMES[1]] is labels[NAMES[2]] is None  # no longer in the CSV
    (folder(root) / "SummaryData" / "SN6_Train_AOI_11_Rotterdam_Buildings.csv").unlink()
    assert read_all(root)[1] == dict.fromkeys(NAMES)


def test_a_wrong_file_is_reported_at_each_start(root):
    write_tile(root, SAR, speckle(size=16), 2, OTHER_STRIP, crs="EPSG:4326")
    labels = write_labels(root, f'{NAMES[0]},0,"POLYGON ((1 1",5,5,1\n')
    for _ in range(2):
        with user_error("wrong_data", tile_path(root, "train", SAR, NAMES[1]), "EPSG:4326"):
            SpaceNet6(root).tiles("train", SAR)
        with user_error("invalid_value", labels):
            SpaceNet6(root).labels(SpaceNet6(root).tile("train", NAMES[0]))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b'{"a": 1}', b'{"a": [1, 2]}', b'{"a": ["x", 1, 2, 3, 4, 5]}', b"PK\3\4half", "shorter", "npz"],
)
def test_a_broken_or_foreign_cache_file_is_written_again(root, content, monkeypatch):
    first = read_all(root)
    for path in (root / ".sn6").glob("*-train*.[jn]*"):
        original = path.read_bytes()
        if content == "npz":
            with path.open("wb") as file:
                np.savez(file, made_from=np.array([1, 2]), other=np.zeros(3))
        else:
            path.write_bytes(original[:-20] if content == "shorter" else content)
    assert_same(read_all(root), first)
    forbid_reading(monkeypatch)
    assert_same(read_all(root), first)


def test_without_a_writable_folder_there_is_no_cache(root, capfd):
    (root / ".sn6").write_text("a file in place of the folder")
    assert_same(read_all(root), read_all(root))
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in root.iterdir()) == [".sn6", "train"]


def test_several_processes_read_the_same_at_the_same_time(root):
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        results = list(pool.map(read_all, [root] * 6))
    for result in results:
        assert_same(result, read_all(root))
    assert not list((root / ".sn6").glob(".*part*"))


def test_an_archive_is_pickled_without_what_it_has_read(root):
    archive = SpaceNet6(root)
    before = len(pickle.dumps(archive))
    tile = archive.tiles("train", SAR)[1]
    labels = archive.labels(tile)
    assert len(pickle.dumps(archive)) == before
    copy = pickle.loads(pickle.dumps(archive)).labels(tile)
    assert shapely.to_wkt(copy.polygons).tolist() == shapely.to_wkt(labels.polygons).tolist()


def test_packed_labels_are_bit_identical(archive_root):
    (path,) = (folder(archive_root) / "SummaryData").glob("*.csv")
    labels = sn6.datasets.labels.read_labels(path)
    packed = pack(labels)
    assert list(packed) == list(labels)
    assert "another" not in packed
    assert sum(len(one) for one in labels.values()) > 100
    for image_id, one in labels.items():
        assert shapely.to_wkb(packed[image_id].polygons).tolist() == shapely.to_wkb(one.polygons).tolist()
        np.testing.assert_array_equal(packed[image_id].heights, one.heights)
