"""Statistics come from sums kept beside the archive, and are those of the pixels as they are now."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from helpers.handmade import OTHER_STRIP, SAR_STRIP, folder, speckle, write_labels, write_orientations, write_tile

from sn6.data.normalization import measure_statistics
from sn6.data.source import Source
from sn6.datasets.archive import Archive
from sn6.datasets.statistics import polygons_in_mask, read_statistics, tile_statistics

RADAR = Source("SAR-Intensity", (1, 2, 3, 4), orient=True, min_area=20.0)
HOUSE = '"POLYGON ((10 20, 30 20, 30 40, 10 40, 10 20))"'
NAMES = [f"{SAR_STRIP}_tile_1", f"{OTHER_STRIP}_tile_2", f"{OTHER_STRIP}_tile_3"]


@pytest.fixture
def root(tmp_path):
    """Three radar tiles with a house of 400 pixels each; the upper half of the second and so of its house is nodata."""
    for number, name in enumerate(NAMES, start=1):
        pixels = speckle(seed=number)
        pixels[:, : 32 * (number == 2)] = 0
        write_tile(tmp_path, "SAR-Intensity", pixels, number, name.rpartition("_tile_")[0])
    write_labels(tmp_path, "".join(f"{name},0,{HOUSE},5,5,1\n" for name in NAMES))
    write_orientations(tmp_path)
    return tmp_path


def measured(root, source=RADAR):
    archive = Archive(root)
    return measure_statistics(archive, archive.tiles("train", source.product), source)


def plain(images, building):
    """Mean, deviation and share of building of arrays (4, pixels)."""
    values = np.concatenate(images, axis=1).astype(float)
    return values.mean(axis=1), values.std(axis=1), building / values.shape[1]


def assert_are(statistics, expected):
    for here, there in zip((statistics.mean, statistics.std, statistics.building_fraction), expected, strict=True):
        assert here == pytest.approx(there, rel=1e-9)


def kept(root):
    return root / ".sn6" / "statistics-SAR-Intensity.json"


def no_reading(*_):
    raise AssertionError("a tile was read once more")


def test_statistics_are_those_of_the_pixels_read_or_kept(root, monkeypatch):
    images = [speckle(seed=k)[:, 32 * (k == 2) :].reshape(4, -1) for k in (1, 2, 3)]
    expected = plain(images, 400 + 160 + 400)  # 8 of 20 rows of the second house lie on data
    first = measured(root)
    assert_are(first, expected)
    monkeypatch.setattr(Archive, "read", no_reading)
    assert measured(root) == first  # to the last bit
    bands = measured(root, Source("SAR-Intensity", (3, 1, 1), orient=False, min_area=20.0))
    assert bands.mean == tuple(first.mean[k] for k in (2, 0, 0))


def test_a_tile_that_changed_is_measured_anew(root, monkeypatch):
    measured(root)
    before = kept(root).read_text()
    os.utime(next((folder(root) / "SAR-Intensity").glob("*tile_3.tif")), ns=(1, 1))
    new = speckle(seed=9)
    write_tile(root, "SAR-Intensity", new, 1, SAR_STRIP)
    images = [new.reshape(4, -1), speckle(seed=2)[:, 32:].reshape(4, -1), speckle(seed=3).reshape(4, -1)]
    read, reader = [], Archive.read
    monkeypatch.setattr(Archive, "read", lambda *args: read.append(args[1].image_id) or reader(*args))
    assert_are(measured(root), plain(images, 960))
    assert sorted(read) == sorted([NAMES[0], NAMES[2]])  # by size or time, and the second not
    assert kept(root).read_text() != before


def test_labels_that_changed_are_counted_anew(root):
    measured(root)
    small = '"POLYGON ((40 40, 50 40, 50 50, 40 50, 40 40))"'
    write_labels(root, "".join(f"{name},0,{small},5,5,1\n" for name in NAMES))
    assert measured(root).building_fraction == pytest.approx(300 / (2.5 * 64 * 64))
    larger = Source("SAR-Intensity", (1,), orient=True, min_area=30.0)  # a house of 25 m² is not in the mask
    assert measured(root, larger).building_fraction == 0


def test_what_was_kept_of_other_tiles_stays(root):
    archive = Archive(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    for tile in tiles:
        tile_statistics(archive, [tile], "SAR-Intensity", 20.0)
    assert set(read_statistics(root, "SAR-Intensity")) == set(NAMES)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '{"a": {"pixels": 3}}'])
def test_what_cannot_be_read_is_measured_and_put_right(root, text):
    first = measured(root)
    kept(root).write_text(text)
    assert measured(root) == first
    assert set(json.loads(kept(root).read_text())) == set(NAMES)


def test_a_folder_that_cannot_be_written_is_done_without(root, capfd):
    (root / ".sn6").write_text("a file where the folder would be")
    assert measured(root) == measured(root)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in root.iterdir()) == [".sn6", "train"]


def test_several_ranks_at_once_measure_the_same(root):
    archive = Archive(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:  # sn6.datasets.statistics alone starts fast
        ranks = list(pool.map(partial(tile_statistics, archive, tiles), ["SAR-Intensity"] * 3, [20.0] * 3))
    assert ranks[0] == ranks[1] == ranks[2]
    assert read_statistics(root, "SAR-Intensity") == dict(zip([t.image_id for t in tiles], ranks[0], strict=True))
    assert not list(kept(root).parent.glob(".*part*"))


def test_a_tile_without_labels_has_no_building():
    assert len(polygons_in_mask(None, 20.0)) == 0
