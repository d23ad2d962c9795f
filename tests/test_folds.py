"""Divide tiles by their location, so that training and validation tiles do not overlap."""

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import user_error

from sn6.data.datamodule import TileDataModule
from sn6.data.folds import (
    bounds_of,
    count_overlapping,
    make_fold,
    overlaps_any,
    squares_outside_column,
    with_fraction,
)
from sn6.data.partitions import PARTITIONS, assign_blocks, assign_columns, assign_ten_columns
from sn6.datasets.declaration import Tile
from sn6.datasets.spacenet6 import SpaceNet6

PUBLISHED = Path(__file__).parents[2] / "shared" / "real" / "train_tiles.csv"
needs_published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the table of the published tiles is missing")


def tile(west, north, name="", size=450.0):
    return Tile(name or f"{west}_{north}", "train", "strip", 0, (west, north - size, west + size, north), ())


def overlaps(tiles, others):
    """Compare pair by pair, from the definition of a rectangle; overlaps of up to a centimetre do not count."""
    a, b = (np.array([t.bounds for t in some]).reshape(-1, 1, 4) for some in (tiles, others))
    b = b.swapaxes(0, 1)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return (width > 0.01) & (height > 0.01)


def assert_valid(fold, tiles):
    """Assert that training and validation tiles do not overlap, and that every tile is used once or dropped."""
    assert not overlaps(fold.train, fold.validation).any()
    ids = sorted(t.image_id for part in (fold.train, fold.validation, fold.dropped) for t in part)
    assert ids == sorted(t.image_id for t in tiles)
    assert fold.test == fold.validation


@pytest.fixture
def strips():
    """Return three strips of ten tiles over the same ground, each with another offset."""
    return [tile(x0 + 450 * i, 5748000.0) for x0 in (592000.0, 592130.0, 592300.0) for i in range(10)]


@pytest.fixture(scope="module")
def city():
    """Return five belts of 2.7 km, 20 m apart, each imaged twelve times with tiles shifted south by up to 21 m."""
    rng = np.random.default_rng(5)
    return [
        tile(590000 + 450 * column + east, 5748000.0 - 470 * belt - south, f"{belt}_{flight}_{column}")
        for belt in range(5)
        for flight, (east, south) in enumerate(rng.uniform(0, (450, 21), (12, 2)).round(3))
        for column in range(6)
    ]


@pytest.fixture(scope="module")
def published():
    with PUBLISHED.open() as file:
        return [tile(float(row["x"]), float(row["y"]), row["ImageId"]) for row in csv.DictReader(file)]


def test_squares_overlap_by_more_than_a_centimetre():
    square = bounds_of([tile(592000.0, 5748000.0)])
    for east, expected in ((450.0, False), (449.995, False), (449.9, True), (900.0, False)):
        assert overlaps_any(bounds_of([tile(592000.0 + east, 5748000.0)]), square)[0] == expected
    assert not overlaps_any(bounds_of([tile(592000.0, 5748450.0)]), square)[0]
    assert overlaps_any(bounds_of([tile(592449.0, 5748449.0)]), square)[0]  # a square metre at the corner


def test_overlapping_tiles_are_counted(strips):
    others = strips[:10]
    expected = overlaps(strips, others).any(axis=1).sum()
    assert count_overlapping(strips, bounds_of(others)) == expected > 10
    assert count_overlapping(strips, np.zeros((0, 4))) == 0


def test_squares_outside_a_column():
    tiles = [tile(west, 0.0) for west in (0.0, 19.0, 21.0, 55.0, 79.0, 81.0, 100.0)]  # edges at 20, 40, 60 and 80
    assert squares_outside_column(tiles, 0)[:, 0].tolist() == [21.0, 55.0, 79.0, 81.0, 100.0]
    assert squares_outside_column(tiles, 4)[:, 0].tolist() == [0.0, 19.0, 21.0, 55.0, 79.0]


@pytest.mark.parametrize("fold", range(5))
def test_training_and_validation_tiles_do_not_overlap(strips, fold):
    parts = make_fold(strips, fold, None)
    assert_valid(parts, strips)
    assert overlaps(parts.dropped, parts.validation).any(axis=1).all()  # no tile is dropped without a reason


def test_a_fraction_of_the_training_tiles(strips):
    fold = make_fold(strips, 4, None)
    ids = {part: [t.image_id for t in getattr(fold, part)] for part in ("train", "validation", "test", "dropped")}
    smaller = set()
    for fraction in (0.001, 0.1, 0.25, 1.0):
        kept = with_fraction(fold, fraction, seed=3)
        train = [t.image_id for t in kept.train]
        assert len(train) == max(1, round(fraction * len(ids["train"])))
        assert train == [one for one in ids["train"] if one in set(train)]  # in their order
        assert smaller <= set(train)
        smaller = set(train)
        assert [t.image_id for t in kept.validation] == ids["validation"]
        assert sorted(t.image_id for t in kept.dropped) == sorted({*ids["dropped"], *ids["train"]} - set(train))
    quarters = [{t.image_id for t in with_fraction(fold, 0.25, seed).train} for seed in range(5)]
    assert len(set(map(frozenset, quarters))) > 1


def test_a_run_reads_no_other_training_tile_than_those_of_its_fraction(archive_root):
    radar = TileDataModule(SpaceNet6(archive_root), product="SAR-Intensity", fold=0, train_fraction=0.5, num_workers=0)
    whole = TileDataModule(SpaceNet6(archive_root), product="SAR-Intensity", fold=0, num_workers=0)
    for data in (whole, radar):
        data.setup("fit")
    assert len(radar.train_tiles) == round(len(whole.train_tiles) / 2) < len(whole.train_tiles)
    assert len(radar.validation_tiles) == len(whole.validation_tiles)
    assert radar.statistics != whole.statistics  # of its own tiles


def test_no_other_tile_overlaps_the_test_column(strips):
    parts = make_fold(strips, 4, 3)
    west = np.array([t.bounds[0] for t in parts.test])
    assert west.min() >= 592000 + 3 / 5 * (450 * 9 + 300)
    for part in (parts.train, parts.validation):
        assert part
        assert not overlaps(part, parts.test).any()


@pytest.mark.parametrize("partition", PARTITIONS)
def test_no_other_tile_overlaps_the_test_part_of_any_partition(city, partition):
    parts = make_fold(city, 2, 0, partition=partition)
    for part in (parts.train, parts.validation):
        assert part
        assert not overlaps(part, parts.test).any()
    assert not overlaps(parts.train, parts.validation).any()


def test_no_other_tile_overlaps_the_test_tiles(strips):
    above = tile(592900.0, 5748200.0, "test")
    parts = make_fold(strips, 4, None, [above])
    assert parts.test == [above]
    assert not overlaps([*parts.train, *parts.validation], [above]).any()


def test_columns_of_other_archives_are_equal_parts_of_the_extent():
    bounds = bounds_of([tile(west, 0.0) for west in (0.0, 19.0, 21.0, 55.0, 79.0, 81.0, 100.0)])
    assert assign_columns(bounds).tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert assign_ten_columns(bounds).tolist() == [0, 1, 2, 5, 7, 8, 9]


@pytest.mark.parametrize("fold", range(10))
def test_neighbours_of_one_of_ten_columns_do_not_train(city, fold):
    """Compare with columns computed independently: tenths of the extent of the left edges."""
    west = np.array([t.bounds[0] for t in city])
    column = np.minimum((west - west.min()) // ((west.max() - west.min()) / 10), 9)
    parts = make_fold(city, fold, None, partition="ten_columns")
    assert_valid(parts, city)
    assert parts.validation == [t for t, c in zip(city, column, strict=True) if c == fold]
    apart = [t for t, c in zip(city, column, strict=True) if abs(c - fold) > 1]
    is_overlapping = overlaps(apart, parts.validation).any(axis=1)
    assert parts.train == [t for t, overlapping in zip(apart, is_overlapping, strict=True) if not overlapping]


def test_blocks_are_rectangles_of_about_as_many_tiles(city):
    parts = assign_blocks(bounds_of(city))
    assert np.bincount(parts).sum() == len(city) == 360
    assert all(abs(size - 360 / 5) <= 2 * 0.1 * 360 / 5 for size in np.bincount(parts))
    corners = np.array([t.bounds[:2] for t in city])
    boxes = [(corners[parts == k].min(axis=0), corners[parts == k].max(axis=0)) for k in range(5)]
    for a, (low, high) in enumerate(boxes):  # straight cuts: no corner of a tile of another block is in the block
        assert not any(((corners[parts != a] >= low) & (corners[parts != a] <= high)).all(axis=1))


@pytest.mark.parametrize("fold", range(5))
def test_blocks_do_not_overlap(city, fold):
    parts = make_fold(city, fold, None, partition="blocks")
    assert_valid(parts, city)
    assert overlaps(parts.dropped, parts.validation).any(axis=1).all()


def test_blocks_are_cut_where_few_tiles_overlap(city):
    """The cuts are between the belts, where few tiles overlap; a column cuts through every belt."""
    blocks = assign_blocks(bounds_of(city))
    assert len({(t.image_id[0], block) for t, block in zip(city, blocks.tolist(), strict=True)}) == 5
    train = {
        partition: sum(len(make_fold(city, k, None, partition=partition).train) for k in range(5))
        for partition in ("blocks", "columns")
    }
    assert train["blocks"] > 1.1 * train["columns"]


def test_blocks_of_separate_clusters_drop_no_tile():
    """Five clusters of equally many tiles are far apart: the cuts are between them."""
    clusters = ((0, 0), (0, 3000), (3000, 0), (3000, 3000), (6000, 1500))
    tiles = [tile(590000.0 + x + i, 5748000.0 + y + i, f"{x}_{y}_{i}") for x, y in clusters for i in range(4)]
    for fold in range(5):
        parts = make_fold(tiles, fold, None, partition="blocks")
        assert (len(parts.train), len(parts.validation), len(parts.dropped)) == (16, 4, 0)


@pytest.mark.parametrize("tiles", [1, 2, 4, 6])
def test_few_tiles_are_divided_into_as_many_blocks_as_possible(tiles):
    parts = assign_blocks(bounds_of([tile(590000.0 + 450 * i, 5748000.0) for i in range(tiles)]))
    assert len(set(parts.tolist())) == min(tiles, 5)


@pytest.mark.parametrize(
    ("partition", "fold", "column", "kind", "key", "value"),
    [
        ("columns", 5, None, "invalid_value", "data.fold", 5),
        ("ten_columns", 2, 10, "invalid_value", "data.test_column", 10),
        ("blocks", 5, None, "invalid_value", "data.fold", 5),
        ("columns", 1, None, "not_found", "data.fold", 1),
        ("columns", 0, 2, "not_found", "data.test_column", 2),
        ("columns", 4, 4, "conflict", "data.test_column", 4),
    ],
)
def test_a_fold_without_tiles(partition, fold, column, kind, key, value):
    tiles = [tile(592000.0, 5748000.0), tile(592450.0, 5748000.0), tile(599000.0, 5748000.0)]
    with user_error(kind, key, value):
        make_fold(tiles, fold, column, partition=partition)


def test_an_archive_without_labels():
    with user_error("wrong_data", "data.root"):
        make_fold([], 4, None)


@needs_published
def test_the_published_columns(published):
    """The numbers of tiles are those published for the baseline's five columns."""
    assert np.bincount(assign_columns(bounds_of(published))).tolist() == [586, 813, 652, 645, 705]
    parts = make_fold(published, 4, None)
    assert (len(parts.train), len(parts.validation), len(parts.dropped)) == (2359, 705, 337)
    assert len(published) == 3401


@needs_published
@pytest.mark.parametrize(
    ("partition", "train"),
    [  # counted pair by pair
        ("columns", [2441, 1907, 2127, 2180, 2359]),
        ("ten_columns", [2775, 2385, 2260, 2267, 2380, 2492, 2507, 2438, 2316, 2654]),
        ("blocks", [2648, 2315, 2388, 2529, 2675]),
    ],
)
def test_every_fold_of_the_published_tiles(published, partition, train):
    folds = [make_fold(published, k, None, partition=partition) for k in range(PARTITIONS[partition].count)]
    for parts in folds:
        assert_valid(parts, published)
    assert [len(parts.train) for parts in folds] == train
    assert sum(len(parts.validation) for parts in folds) == 3401


@needs_published
def test_the_winners_columns(published):
    """The columns are those of rows of the table that the winner published."""
    columns = assign_ten_columns(bounds_of(published))
    number = {t.image_id.rpartition("_")[2]: column for t, column in zip(published, columns, strict=True)}
    expected = {"3334": 2, "446": 4, "4539": 3, "1985": 8, "9375": 0, "6098": 1, "4908": 2, "8405": 1, "9507": 9}
    assert {name: number[name] for name in expected} == expected
