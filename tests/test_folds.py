"""Tiles train or validate by place, and no ground is in both."""

import csv
from pathlib import Path

import numpy as np
import pytest

from sn6.data.folds import bounds_of, make_fold, overlaps_any
from sn6.data.partitions import PARTITIONS, blocks_of, columns_of, ten_columns_of
from sn6.datasets.archive import Tile
from sn6.errors import UserError

REAL = Path(__file__).parents[2] / "shared" / "real" / "train_tiles.csv"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the table of the real tiles is not at hand")


def tile(west, north, name="", size=450.0):
    return Tile(name or f"{west}_{north}", "train", "strip", 0, (west, north - size, west + size, north), ())


def overlaps(tiles, others):
    """Pair by pair, from the definition of a rectangle; a centimetre is let pass."""
    a, b = (np.array([t.bounds for t in side]).reshape(-1, 1, 4) for side in (tiles, others))
    b = b.swapaxes(0, 1)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return (width > 0.01) & (height > 0.01)


def assert_sound(parts, tiles):
    """No ground is in two parts, every tile is in one of them, and none is dropped that need not be."""
    assert not overlaps(parts.train, parts.validation).any()
    ids = sorted(t.image_id for part in (parts.train, parts.validation, parts.dropped) for t in part)
    assert ids == sorted(t.image_id for t in tiles)
    assert parts.test == parts.validation


@pytest.fixture
def strips():
    """Three strips of ten tiles over the same ground, each with an offset of its own."""
    return [tile(x0 + 450 * i, 5748000.0) for x0 in (592000.0, 592130.0, 592300.0) for i in range(10)]


@pytest.fixture(scope="module")
def city():
    """Five belts of 2.7 km, 20 m apart, each flown over twelve times with tiles shifted by up to 21 m to the south."""
    rng = np.random.default_rng(5)
    return [
        tile(590000 + 450 * column + east, 5748000.0 - 470 * belt - south, f"{belt}_{flight}_{column}")
        for belt in range(5)
        for flight, (east, south) in enumerate(rng.uniform(0, (450, 21), (12, 2)).round(3))
        for column in range(6)
    ]


@pytest.fixture(scope="module")
def real():
    with REAL.open() as file:
        return [tile(float(row["x"]), float(row["y"]), row["ImageId"]) for row in csv.DictReader(file)]


def test_touching_is_not_sharing_and_a_centimetre_is_let_pass():
    here = bounds_of([tile(592000.0, 5748000.0)])
    for east, shared in ((450.0, False), (449.995, False), (449.9, True), (900.0, False)):
        assert overlaps_any(bounds_of([tile(592000.0 + east, 5748000.0)]), here)[0] == shared
    assert not overlaps_any(bounds_of([tile(592000.0, 5748450.0)]), here)[0]
    assert overlaps_any(bounds_of([tile(592449.0, 5748449.0)]), here)[0]  # a square metre at the corner


@pytest.mark.parametrize("fold", range(5))
def test_no_ground_in_two_parts(strips, fold):
    parts = make_fold(strips, fold, None)
    assert_sound(parts, strips)
    assert overlaps(parts.dropped, parts.validation).any(axis=1).all()  # none is dropped without a reason


def test_test_column_is_kept_out_of_everything(strips):
    parts = make_fold(strips, 4, 3)
    west = np.array([t.bounds[0] for t in parts.test])
    assert west.min() >= 592000 + 3 / 5 * (450 * 9 + 300)
    for part in (parts.train, parts.validation):
        assert part
        assert not overlaps(part, parts.test).any()


@pytest.mark.parametrize("split", PARTITIONS)
def test_a_test_part_of_every_split_is_kept_out_of_everything(city, split):
    parts = make_fold(city, 2, 0, split=split)
    for part in (parts.train, parts.validation):
        assert part
        assert not overlaps(part, parts.test).any()
    assert not overlaps(parts.train, parts.validation).any()


def test_test_tiles_keep_their_ground_to_themselves(strips):
    above = tile(592900.0, 5748200.0, "test")
    parts = make_fold(strips, 4, None, [above])
    assert parts.test == [above]
    assert not overlaps([*parts.train, *parts.validation], [above]).any()


def test_columns_are_equal_parts_of_the_extent_elsewhere():
    bounds = bounds_of([tile(west, 0.0) for west in (0.0, 19.0, 21.0, 55.0, 79.0, 81.0, 100.0)])
    assert columns_of(bounds).tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert ten_columns_of(bounds).tolist() == [0, 1, 2, 5, 7, 8, 9]


@pytest.mark.parametrize("fold", range(10))
def test_neighbours_of_one_of_ten_columns_do_not_train(city, fold):
    """Counted by hand: the column of a left edge is a tenth of the extent."""
    west = np.array([t.bounds[0] for t in city])
    column = np.minimum((west - west.min()) // ((west.max() - west.min()) / 10), 9)
    parts = make_fold(city, fold, None, split="ten_columns")
    assert_sound(parts, city)
    assert parts.validation == [t for t, c in zip(city, column, strict=True) if c == fold]
    apart = [t for t, c in zip(city, column, strict=True) if abs(c - fold) > 1]
    wanted = [t for t, shared in zip(apart, overlaps(apart, parts.validation).any(axis=1), strict=True) if not shared]
    assert parts.train == wanted


def test_blocks_are_rectangles_of_about_as_many_tiles(city):
    parts = blocks_of(bounds_of(city))
    assert np.bincount(parts).sum() == len(city) == 360
    assert all(abs(size - 360 / 5) <= 2 * 0.1 * 360 / 5 for size in np.bincount(parts))
    corners = np.array([t.bounds[:2] for t in city])
    boxes = [(corners[parts == k].min(axis=0), corners[parts == k].max(axis=0)) for k in range(5)]
    for a, (low, high) in enumerate(boxes):  # straight cuts: no corner of another block lies among a block's
        assert not any(((corners[parts != a] >= low) & (corners[parts != a] <= high)).all(axis=1))


@pytest.mark.parametrize("fold", range(5))
def test_blocks_share_no_ground(city, fold):
    parts = make_fold(city, fold, None, split="blocks")
    assert_sound(parts, city)
    assert overlaps(parts.dropped, parts.validation).any(axis=1).all()


def test_blocks_are_cut_where_few_tiles_lie_across(city):
    """Between the belts, which but some tiles reach over: a column cuts through every flight."""
    blocks = blocks_of(bounds_of(city))
    assert len({(t.image_id[0], block) for t, block in zip(city, blocks.tolist(), strict=True)}) == 5
    kept = {split: sum(len(make_fold(city, k, None, split=split).train) for k in range(5)) for split in PARTITIONS}
    assert kept["blocks"] > 1.1 * kept["columns"]


def test_blocks_of_ground_with_gaps_lose_nothing():
    """Five places far apart, of as many tiles: the cuts go between them."""
    places = ((0, 0), (0, 3000), (3000, 0), (3000, 3000), (6000, 1500))
    tiles = [tile(590000.0 + x + i, 5748000.0 + y + i, f"{x}_{y}_{i}") for x, y in places for i in range(4)]
    for fold in range(5):
        parts = make_fold(tiles, fold, None, split="blocks")
        assert (len(parts.train), len(parts.validation), len(parts.dropped)) == (16, 4, 0)


@pytest.mark.parametrize("tiles", [1, 2, 4, 6])
def test_few_tiles_are_cut_into_blocks_as_they_can(tiles):
    parts = blocks_of(bounds_of([tile(590000.0 + 450 * i, 5748000.0) for i in range(tiles)]))
    assert len(set(parts.tolist())) == min(tiles, 5)


@pytest.mark.parametrize(
    ("split", "fold", "column", "says"),
    [
        ("columns", 5, None, "data.fold=5 is no column; the columns of data.split=columns are 0 (west) to 4 (east)"),
        ("ten_columns", 2, 10, "data.test_column=10 is no column; the columns of data.split=ten_columns are 0 (west)"),
        ("blocks", 5, None, "data.fold=5 is no block; the blocks of data.split=blocks are 0 to 4"),
        ("columns", 1, None, "data.fold=1 leaves no tile to validate with: 3 tiles, columns with tiles: 0, 4"),
        ("columns", 0, 2, "data.test_column=2 holds no tile; columns with tiles: 0, 4"),
        ("columns", 4, 4, "data.test_column=4 is the column that validates"),
    ],
)
def test_a_fold_with_nothing_in_it_is_told(split, fold, column, says):
    tiles = [tile(592000.0, 5748000.0), tile(592450.0, 5748000.0), tile(599000.0, 5748000.0)]
    with pytest.raises(UserError) as error:
        make_fold(tiles, fold, column, split=split)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_an_archive_without_labels_is_told():
    with pytest.raises(UserError, match="no training tile with labels"):
        make_fold([], 4, None)


@needs_real
def test_the_real_columns(real):
    """The figures of the baseline's five columns, counted by others."""
    assert np.bincount(columns_of(bounds_of(real))).tolist() == [586, 813, 652, 645, 705]
    parts = make_fold(real, 4, None)
    assert (len(parts.train), len(parts.validation), len(parts.dropped)) == (2359, 705, 337)
    assert len(real) == 3401


@needs_real
@pytest.mark.parametrize(
    ("split", "trained"),
    [  # counted pair by pair
        ("columns", [2441, 1907, 2127, 2180, 2359]),
        ("ten_columns", [2775, 2385, 2260, 2267, 2380, 2492, 2507, 2438, 2316, 2654]),
        ("blocks", [2648, 2315, 2388, 2529, 2675]),
    ],
)
def test_every_fold_of_the_real_tiles(real, split, trained):
    folds = [make_fold(real, k, None, split=split) for k in range(PARTITIONS[split].count)]
    for parts in folds:
        assert_sound(parts, real)
    assert [len(parts.train) for parts in folds] == trained
    assert sum(len(parts.validation) for parts in folds) == 3401


@needs_real
def test_the_winners_columns(real):
    """Rows of the table of folds that the winner published."""
    columns = ten_columns_of(bounds_of(real))
    number = {t.image_id.rpartition("_")[2]: column for t, column in zip(real, columns, strict=True)}
    published = {"3334": 2, "446": 4, "4539": 3, "1985": 8, "9375": 0, "6098": 1, "4908": 2, "8405": 1, "9507": 9}
    assert {name: number[name] for name in published} == published
