"""Every tile counts once."""

import doctest

import pytest
import torch

import sn6.metrics.tile_table
from sn6.metrics.tile_table import TileTable

ROWS = torch.tensor([[0.5, 10, 20, 1, 2, 3], [0.1, 0, 5, 0, 1, 0], [0.3, 7, 7, 4, 0, 0]])


def test_the_example_of_the_docstring():
    assert doctest.testmod(sn6.metrics.tile_table).failed == 0


def test_scores_are_from_pooled_counts_and_the_loss_is_the_mean_over_tiles():
    table = TileTable(3)
    table.update(torch.tensor([0, 1, 2]), ROWS)
    scores = table.compute()
    assert (scores["tp"], scores["fp"], scores["fn"]) == (5, 3, 3)
    assert scores["f1"] == pytest.approx(10 / 16)  # by hand: 2·5 / (2·5 + 3 + 3), no mean over tiles
    assert scores["iou"] == pytest.approx(17 / 32)
    assert scores["loss"] == pytest.approx(0.3)


def test_nothing_seen_is_zero_and_no_warning():
    table = TileTable(2)
    table.update(torch.tensor([], dtype=torch.int64), torch.empty(0, 6))
    assert table.compute()["f1"] == 0


def test_a_broken_loss_is_not_hidden():
    table = TileTable(2)
    table.update(torch.tensor([0]), torch.tensor([[float("nan"), 1, 1, 1, 0, 0]]))
    assert table.compute()["tiles"] == 1
    assert table.compute()["loss"] != table.compute()["loss"]
