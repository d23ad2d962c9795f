"""Statistics are computed from cached sums, and are equal to those of the current pixels."""

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
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6
from sn6.datasets.statistics import polygons_in_mask, read_statistics, sum_of_values, tile_statistics

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=20.0)
BUILDING = '"POLYGON ((10 20, 30 20, 30 40, 10 40, 10 20))"'
NAMES = [f"{SAR_STRIP}_tile_1", f"{OTHER_STRIP}_tile_2", f"{OTHER_STRIP}_tile_3"]


@pytest.fixture
def root(tmp_path):
    """Write three SAR tiles with a building of 400 pixels each; the upper half of the second tile is nodata."""
    for number, name in enumerate(NAMES, start=1):
        pixels = speckle(seed=number)
        pixels[:, : 32 * (number == 2)] = 0
        write_tile(tmp_path, "SAR-Intensity", pixels, number, name.rpartition("_tile_")[0])
    write_labels(tmp_path, "".join(f"{name},0,{BUILDING},5,5,1\n" for name in NAMES))
    write_orientations(tmp_path)
    return tmp_path


def measure(root, source=SAR):
    archive = SpaceNet6(root)
    return measure_statistics(archive, archive.tiles("train", source.product.name), source)


def expected_statistics(images, building):
    """Compute mean, standard deviation and building fraction of arrays (4, pixels)."""
    values = np.concatenate(images, axis=1).astype(float)
    return values.mean(axis=1), values.std(axis=1), building / values.shape[1]


def assert_equal(statistics, expected):
    actual = (statistics.mean, statistics.std, statistics.building_fraction)
    for value, expected_value in zip(actual, expected, strict=True):
        assert value == pytest.approx(expected_value, rel=1e-9)


def cache_file(root):
    return root / ".sn6" / "statistics-SAR-Intensity.json"


def fail_to_read(*_):
    raise AssertionError("a tile was read again")


def test_statistics_are_those_of_the_pixels_whether_read_or_cached(root, monkeypatch):
    images = [speckle(seed=k)[:, 32 * (k == 2) :].reshape(4, -1) for k in (1, 2, 3)]
    expected = expected_statistics(images, 400 + 160 + 400)  # 8 of 20 rows of the second building are valid
    first = measure(root)
    assert_equal(first, expected)
    monkeypatch.setattr(SpaceNet6, "read", fail_to_read)
    assert measure(root) == first  # to the last bit
    bands = measure(root, Source(PRODUCTS["SAR-Intensity"], (3, 1, 1), orient=False, min_area=20.0))
    assert bands.mean == tuple(first.mean[k] for k in (2, 0, 0))


def test_a_changed_tile_is_measured_again(root, monkeypatch):
    measure(root)
    before = cache_file(root).read_text()
    os.utime(next((folder(root) / "SAR-Intensity").glob("*tile_3.tif")), ns=(1, 1))
    new = speckle(seed=9)
    write_tile(root, "SAR-Intensity", new, 1, SAR_STRIP)
    images = [new.reshape(4, -1), speckle(seed=2)[:, 32:].reshape(4, -1), speckle(seed=3).reshape(4, -1)]
    read, reader = [], SpaceNet6.read
    monkeypatch.setattr(SpaceNet6, "read", lambda *args: read.append(args[1].image_id) or reader(*args))
    assert_equal(measure(root), expected_statistics(images, 960))
    assert sorted(read) == sorted([NAMES[0], NAMES[2]])  # by size or time; the second one has not changed
    assert cache_file(root).read_text() != before


def test_changed_labels_are_counted_again(root):
    measure(root)
    small = '"POLYGON ((40 40, 50 40, 50 50, 40 50, 40 40))"'
    write_labels(root, "".join(f"{name},0,{small},5,5,1\n" for name in NAMES))
    assert measure(root).building_fraction == pytest.approx(300 / (2.5 * 64 * 64))
    larger = Source(PRODUCTS["SAR-Intensity"], (1,), orient=True, min_area=30.0)  # than the building of 25 m²
    assert measure(root, larger).building_fraction == 0


def test_cached_statistics_of_other_tiles_stay(root):
    archive = SpaceNet6(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    for tile in tiles:
        tile_statistics(archive, [tile], "SAR-Intensity", 20.0)
    assert set(read_statistics(root, "SAR-Intensity")) == set(NAMES)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '{"a": {"pixels": 3}}'])
def test_a_broken_cache_is_written_again(root, text):
    first = measure(root)
    cache_file(root).write_text(text)
    assert measure(root) == first
    assert set(json.loads(cache_file(root).read_text())) == set(NAMES)


def test_without_a_writable_folder_there_is_no_cache(root, capfd):
    (root / ".sn6").write_text("a file in place of the folder")
    assert measure(root) == measure(root)
    out, err = capfd.readouterr()
    assert (out, err.splitlines()) == ("", ["measuring 3 tiles"] * 2)
    assert sorted(path.name for path in root.iterdir()) == [".sn6", "train"]


def test_several_ranks_measure_the_same_at_the_same_time(root):
    archive = SpaceNet6(root)
    tiles = archive.tiles("train", "SAR-Intensity")
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        ranks = list(pool.map(partial(tile_statistics, archive, tiles), ["SAR-Intensity"] * 3, [20.0] * 3))
    assert ranks[0] == ranks[1] == ranks[2]
    assert read_statistics(root, "SAR-Intensity") == dict(zip([t.image_id for t in tiles], ranks[0], strict=True))
    assert not list(cache_file(root).parent.glob(".*part*"))


def test_a_tile_without_labels_has_no_building():
    assert len(polygons_in_mask(None, 20.0, 0.5)) == 0


@pytest.mark.parametrize("whole", [True, False])
def test_sums_are_those_of_the_values_one_after_the_other(whole):
    values = np.random.default_rng(0).normal(100, 50, 10_001).astype(np.float32)
    values = values.round() if whole else values
    total = squares = 0.0
    for value in values.tolist():
        total += value
        squares += value * value
    assert sum_of_values(values) == (total, squares)
    assert sum_of_values(values[:0]) == (0.0, 0.0)
