"""TileTable counts each tile once."""

import doctest
import math

import pytest
import torch

import sn6.metrics.tile_table
from sn6.metrics.tile_table import TileTable

ROWS = torch.tensor([[0.5, 10, 20, 1, 2, 3], [0.1, 0, 5, 0, 1, 0], [0.3, 7, 7, 4, 0, 0]])


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


def test_an_empty_table_scores_zero_without_a_warning():
    table = TileTable(2)
    table.update(torch.tensor([], dtype=torch.int64), torch.empty(0, 6))
    assert table.compute()["f1"] == 0


def test_a_nan_loss_stays_nan():
    table = TileTable(2)
    table.update(torch.tensor([0]), torch.tensor([[float("nan"), 1, 1, 1, 0, 0]]))
    assert table.compute()["scored_tiles"] == 1
    assert math.isnan(table.compute()["loss"])
