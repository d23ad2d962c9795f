"""TileTable counts each tile once."""

import doctest
import math

import pytest
import torch

import sn6.metrics.tile_table
from sn6.metrics.tile_table import TileTable

ROWS = torch.tensor(  # loss, intersection, union; TP, FP, FN of all, of those that touch; merged, split, sum of IoU
    [
        [0.5, 10, 20, 1, 2, 3, 1, 1, 2, 1, 0, 0.75],
        [0.1, 0, 5, 0, 1, 0, 0, 0, 0, 0, 2, 0],
        [0.3, 7, 7, 4, 0, 0, 1, 0, 0, 1, 0, 3.5],
    ]
)


def test_the_docstring_example_runs():
    assert doctest.testmod(sn6.metrics.tile_table).failed == 0


def test_scores_come_from_pooled_counts_and_the_loss_is_the_mean_over_tiles():
    table = TileTable(3)
    table.update(torch.tensor([0, 1, 2]), ROWS)
    scores = table.compute()
    assert (scores["tp"], scores["fp"], scores["fn"]) == (5, 3, 3)
    assert scores["f1"] == pytest.approx(10 / 16)  # by hand: 2·5 / (2·5 + 3 + 3), not the mean over tiles
    assert scores["iou"] == pytest.approx(17 / 32)
    assert scores["loss"] == pytest.approx(0.3)


def test_the_scores_of_the_parts_come_from_pooled_counts():
    table = TileTable(3)
    table.update(torch.tensor([0, 1, 2]), ROWS)
    scores = table.compute()
    assert [scores[f"touching_{key}"] for key in ("tp", "fp", "fn", "f1")] == [2, 1, 2, pytest.approx(4 / 7)]
    assert [scores[f"alone_{key}"] for key in ("tp", "fp", "fn", "f1")] == [3, 2, 1, pytest.approx(6 / 9)]
    assert (scores["touching_recall"], scores["alone_recall"]) == (0.5, 0.75)
    assert (scores["merged"], scores["split"]) == (2, 2)
    assert scores["matched_iou"] == pytest.approx(4.25 / 5)
    assert scores["pq"] == pytest.approx(4.25 / (5 + 3 / 2 + 3 / 2))  # by the definition of the paper


def test_an_empty_table_scores_zero_without_a_warning():
    table = TileTable(2)
    table.update(torch.tensor([], dtype=torch.int64), torch.empty(0, 12))
    assert table.compute()["f1"] == table.compute()["pq"] == 0


def test_a_nan_loss_stays_nan():
    table = TileTable(2)
    table.update(torch.tensor([0]), torch.tensor([[float("nan"), *[1] * 11]]))
    assert table.compute()["scored_tiles"] == 1
    assert math.isnan(table.compute()["loss"])
