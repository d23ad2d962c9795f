"""Breakdowns of the score and its interval, against hand-made cases and a plain resampling loop."""

import random

import numpy as np
import pytest
from shapely import box

from sn6.footprints import Footprints, Labels
from sn6.metrics.breakdown import bin_names, bins, bootstrap_f1, by_group, central, resampled_f1, spatial_blocks
from sn6.metrics.matching import Counts
from sn6.metrics.scorecard import score_tile


def test_a_value_belongs_to_the_bin_that_starts_with_it():
    assert bins(np.array([20, 39.9, 40, 80, 1e9, np.nan]), [20, 40, 80]).tolist() == [0, 0, 1, 2, 2, -1]
    assert bin_names([20, 40, 80], "m2") == ["20-40 m2", "40-80 m2", "80+ m2"]


def test_groups_pool_the_counts_of_their_tiles():
    groups = by_group(["b", None, "a", "b"], [Counts(1, 0, 0), Counts(9, 9, 9), Counts(0, 1, 2), Counts(1, 1, 1)])
    assert list(groups) == ["a", "b"]
    assert groups["b"] == pytest.approx({"tp": 2, "fp": 1, "fn": 1, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert groups["a"]["f1"] == 0


def random_counts(tiles: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 60, (tiles, 3))


def test_the_interval_equals_that_of_a_plain_resampling_of_blocks():
    counts, blocks = random_counts(36), np.repeat(np.arange(12), 3)
    generator = random.Random(0)
    scores = []
    for _ in range(4000):
        drawn = [row for block in generator.choices(range(12), k=12) for row in counts[blocks == block].tolist()]
        tp, fp, fn = (sum(column) for column in zip(*drawn, strict=True))
        scores.append(2 * tp / (2 * tp + fp + fn))
    expected = np.quantile(scores, [0.025, 0.975])
    assert bootstrap_f1(counts, blocks, 4000, 0.95) == pytest.approx(expected.tolist(), abs=0.01)


def test_more_passes_over_the_same_blocks_do_not_narrow_the_interval():
    counts = random_counts(20)
    once = bootstrap_f1(counts, np.arange(20), 500, 0.95)
    assert bootstrap_f1(np.tile(counts, (7, 1)), np.tile(np.arange(20), 7), 500, 0.95) == once
    as_if_separate = bootstrap_f1(np.tile(counts, (7, 1)), np.arange(140), 500, 0.95)
    assert as_if_separate[1] - as_if_separate[0] < 0.6 * (once[1] - once[0])


def test_the_interval_contains_the_score_and_is_a_point_if_all_blocks_are_equal():
    tp, fp, fn = random_counts(30).sum(axis=0)
    low, high = bootstrap_f1(random_counts(30), np.arange(30), 500, 0.95)
    assert low < 2 * tp / (2 * tp + fp + fn) < high
    wider = bootstrap_f1(random_counts(30), np.arange(30), 500, 0.99)
    assert wider[0] < low < high < wider[1]
    assert bootstrap_f1(np.tile([6, 2, 2], (9, 1)), np.arange(9), 100, 0.95) == (0.75, 0.75)


def test_runs_are_resampled_on_the_same_draws_so_that_their_difference_is_paired():
    """A run that finds one more building of each ten than another does so in every draw, however the blocks differ."""
    counts, blocks = random_counts(24), np.repeat(np.arange(8), 3)
    better = counts + counts[:, [2]] // 10 * [1, 0, -1]
    pair = resampled_f1(np.stack([counts, better]), blocks, 300)
    assert pair[0].tolist() == resampled_f1(counts, blocks, 300).tolist()
    gain = central(pair[1] - pair[0], 0.95)
    alone = [bootstrap_f1(one, blocks, 300, 0.95) for one in (counts, better)]
    assert gain[0] > 0
    assert gain[1] - gain[0] < 0.5 * min(high - low for low, high in alone)


def test_tiles_with_their_corners_in_one_square_are_one_block():
    corners = np.array([[900.0, 450.0], [1349.0, 899.0], [1350.0, 450.0], [900.0, 449.0], [901.0, 451.0]])
    blocks = spatial_blocks(corners, 450.0).tolist()
    assert blocks[0] == blocks[1] == blocks[4]
    assert len({blocks[0], blocks[2], blocks[3]}) == 3
    assert sorted(set(blocks)) == [0, 1, 2]


@pytest.mark.parametrize(("pixel_size", "counted"), [(0.5, 0), (0.99, 0), (1.0, 1), (10.0, 1)])
def test_buildings_count_from_20_square_metres_at_any_pixel_size(pixel_size, counted):
    buildings = np.array([box(0, 0, 4, 5)], dtype=object)
    tile = score_tile("a", None, Labels(buildings, np.zeros(1)), Footprints(buildings, np.ones(1)), None, pixel_size)
    assert tile.counts == Counts(counted, 0, 0)
