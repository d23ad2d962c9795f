"""Average precision: by hand, and against a plain walk over all thresholds."""

import doctest

import numpy as np
import pytest
from helpers.ranks import on_ranks

import sn6.metrics.average_precision
from sn6.metrics.average_precision import average_precision
from sn6.metrics.ranked_proposals import RankedProposals


def test_the_docstring_example_runs():
    assert doctest.testmod(sn6.metrics.average_precision, extraglobs={"np": np}).failed == 0


@pytest.mark.parametrize(
    ("confidences", "matched", "buildings", "expected"),
    [
        ([0.9, 0.8], [1, 1], 2, 1.0),
        ([0.9, 0.8], [1, 1], 4, 0.5),  # recall ends at a half
        ([0.9, 0.8, 0.7], [0, 1, 1], 2, 2 / 3),  # the best precision at or after each recall
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 2, 0.5 + 0.5 * 0.5),
        ([0.5, 0.5, 0.5], [1, 0, 1], 2, 2 / 3),  # equal confidences are one point
        ([0.5, 0.9], [1, 0], 1, 0.5),
        ([-3, 7e5], [1, 1], 2, 1.0),  # any real numbers
        ([], [], 3, 0.0),
        ([0.5], [0], 0, 0.0),
        ([0.5], [0], 2, 0.0),
    ],
)
def test_hand_computed(confidences, matched, buildings, expected):
    value = average_precision(np.array(confidences, dtype=float), np.array(matched, dtype=bool), buildings)
    assert value == pytest.approx(expected)


def plain_average_precision(confidences, matched, buildings):
    """Integrate, in 20,000 steps of recall, the highest precision that a threshold gives at that recall or more."""
    points = []
    for threshold in set(confidences):
        kept = [hit for confidence, hit in zip(confidences, matched, strict=True) if confidence >= threshold]
        points.append((sum(kept) / buildings, sum(kept) / len(kept)))
    levels = (np.arange(20_000) + 0.5) / 20_000
    return np.mean([max((p for r, p in points if r >= level), default=0.0) for level in levels])


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_area_under_the_best_precisions(seed):
    rng = np.random.default_rng(seed)
    confidences, matched = rng.integers(0, 12, 40) / 12, rng.random(40) < 0.5
    value = average_precision(confidences, matched, 30)
    assert value == pytest.approx(plain_average_precision(confidences.tolist(), matched.tolist(), 30), abs=1e-3)


def tile(number):
    rng = np.random.default_rng(number)
    proposals = [0, 5, 1, 9, 4][number]
    return number, rng.integers(0, 6, proposals) / 6, rng.random(proposals) < 0.6


def collect(ranks):
    """Return the average precision from this rank's tiles; where there are two, both have tile 3 and the last none."""
    import torch.distributed as distributed

    shares = {1: [[4, 3, 2, 1, 0]], 3: [[0, 3, 2], [1, 3, 4], []]}[ranks]
    if ranks > 1:
        import os

        distributed.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=ranks)
    ranked = RankedProposals()
    for number in shares[distributed.get_rank() if ranks > 1 else 0]:
        ranked.enter(*tile(number))
    return ranked.compute(14)


def test_ranks_count_each_tile_once():
    confidences, matched = (np.concatenate(values) for values in list(zip(*map(tile, range(5)), strict=True))[1:])
    expected = average_precision(confidences, matched, 14)
    assert 0 < expected < 1
    assert on_ranks(collect, 1) == [expected]
    assert on_ranks(collect, 3) == [expected] * 3


def test_no_tile_scores_zero():
    assert RankedProposals().compute(0) == 0
