"""Tiles train or validate by place, and no ground is in both."""

import csv
from pathlib import Path

import numpy as np
import pytest

from sn6.data.archive import Tile
from sn6.data.folds import bounds_of, columns_of, make_fold, share_ground
from sn6.errors import UserError

REAL = Path(__file__).parents[2] / "shared" / "real" / "train_tiles.csv"


def tile(west, north, name="", size=450.0):
    return Tile(name or f"{west}_{north}", "train", "strip", 0, (west, north - size, west + size, north), ())


def overlap_area(a, b):
    """By hand, from the definition of a rectangle."""
    width = min(a.bounds[2], b.bounds[2]) - max(a.bounds[0], b.bounds[0])
    height = min(a.bounds[3], b.bounds[3]) - max(a.bounds[1], b.bounds[1])
    return max(width, 0) * max(height, 0)


@pytest.fixture
def strips():
    """Three strips of ten tiles over the same ground, each with an offset of its own."""
    return [tile(x0 + 450 * i, 5748000.0) for x0 in (592000.0, 592130.0, 592300.0) for i in range(10)]


def test_touching_is_not_sharing_and_a_centimetre_is_let_pass():
    here = bounds_of([tile(592000.0, 5748000.0)])
    for east, shared in ((450.0, False), (449.995, False), (449.9, True), (900.0, False)):
        assert share_ground(bounds_of([tile(592000.0 + east, 5748000.0)]), here)[0] == shared
    assert not share_ground(bounds_of([tile(592000.0, 5748450.0)]), here)[0]
    assert share_ground(bounds_of([tile(592449.0, 5748449.0)]), here)[0]  # a square metre at the corner


@pytest.mark.parametrize("fold", range(5))
def test_no_ground_in_two_parts(strips, fold):
    parts = make_fold(strips, fold, None)
    assert all(overlap_area(a, b) == 0 for a in parts.train for b in parts.validation)
    assert len(parts.train) + len(parts.validation) + len(parts.dropped) == len(strips)
    assert parts.test == parts.validation
    for lost in parts.dropped:  # none is dropped without a reason
        assert any(overlap_area(lost, kept) > 0 for kept in parts.validation)


def test_test_column_is_kept_out_of_everything(strips):
    parts = make_fold(strips, 4, 3)
    west = np.array([t.bounds[0] for t in parts.test])
    assert west.min() >= 592000 + 3 / 5 * (450 * 9 + 300)
    for part in (parts.train, parts.validation):
        assert part
        assert all(overlap_area(a, b) == 0 for a in part for b in parts.test)


def test_test_tiles_keep_their_ground_to_themselves(strips):
    above = tile(592900.0, 5748200.0, "test")
    parts = make_fold(strips, 4, None, [above])
    assert parts.test == [above]
    assert all(overlap_area(a, above) == 0 for a in (*parts.train, *parts.validation))


def test_columns_are_equal_parts_of_the_extent_elsewhere():
    assert columns_of(np.array([0.0, 19.0, 21.0, 55.0, 79.0, 81.0, 100.0])).tolist() == [0, 0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("fold", "column", "says"),
    [
        (5, None, "data.fold=5 is no column; the columns are 0 (west) to 4 (east)"),
        (1, None, "data.fold=1 leaves no tile to validate with: 3 tiles, columns with tiles: 0, 4"),
        (0, 2, "data.test_column=2 holds no tile"),
        (4, 4, "data.test_column=4 is the column that validates"),
    ],
)
def test_a_fold_with_nothing_in_it_is_told(fold, column, says):
    tiles = [tile(592000.0, 5748000.0), tile(592450.0, 5748000.0), tile(599000.0, 5748000.0)]
    with pytest.raises(UserError) as error:
        make_fold(tiles, fold, column)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not REAL.exists(), reason="the table of the real tiles is not at hand")
def test_the_real_tiles():
    """The figures of the baseline's five columns, counted by others."""
    with REAL.open() as file:
        tiles = [tile(float(row["x"]), float(row["y"]), row["ImageId"]) for row in csv.DictReader(file)]
    sizes = np.bincount(columns_of(np.array([t.bounds[0] for t in tiles])))
    assert sizes.tolist() == [586, 813, 652, 645, 705]
    parts = make_fold(tiles, 4, None)
    assert (len(parts.train), len(parts.validation), len(parts.dropped)) == (2359, 705, 337)
