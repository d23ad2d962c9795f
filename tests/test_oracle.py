"""The oracle benchmark finds what it should in maps of the ground truth, and fails where a polygonizer does not."""

import numpy as np
import pytest
from helpers.labels import labels_of

from benchmarks import oracle
from benchmarks.comparison import Mismatch
from benchmarks.oracle import ERRORS, RECIPES, Error, count_found, with_error
from sn6.targets.distance import Distance
from sn6.targets.mask import Mask
from sn6.targets.offset import Offset


@pytest.fixture
def row_houses():
    """Three row houses of 16 × 20 pixels, one alone, one of 9 × 8 pixels that is too small to count."""
    instances = np.zeros((70, 90), np.int32)
    for number in range(3):
        instances[10:30, 10 + 16 * number : 26 + 16 * number] = number + 1
    instances[45:60, 50:70], instances[45:54, 20:28] = 4, 5
    return labels_of(instances)


@pytest.mark.parametrize("name", RECIPES)
def test_counts_of_row_houses_from_exact_maps(name, row_houses):
    """The binary components are the house that stands alone, and three houses in one."""
    counts = count_found(RECIPES[name], row_houses, ERRORS["exact"], seed=0)
    expected = (1, 1, 3) if name == "binary components" else (4, 0, 0)
    assert (counts.tp, counts.fp, counts.fn) == expected


def test_an_edge_of_one_pixel_does_not_survive_a_blur_and_one_of_1_m_does(row_houses):
    found = [
        count_found(RECIPES[f"inner edge of {width}"], row_houses, Error(2, 0), seed=0).tp for width in ("0.5 m", "1 m")
    ]
    assert found == [1, 4]


def test_noise_has_the_units_of_its_map_and_stays_in_its_range():
    rng = np.random.default_rng(0)
    for target, value, low, high in ((Mask(), 0.5, 0, 1), (Distance(10.0), 0.5, 0, 1), (Offset(), -3.0, -99, 99)):
        layer = np.full((target.channels, 200, 200), value, np.float32)
        noisy = with_error(layer, target, Error(1, 0.04), rng)
        unit = {Mask: 1, Distance: 0.25, Offset: 2.5}[type(target)]  # 2.5 m are a quarter of 10 m
        assert noisy.std() == pytest.approx(0.04 * unit, rel=0.02)
        strong = with_error(layer, target, Error(1, 3), rng)
        assert low <= strong.min() < strong.max() <= high


def test_a_blur_of_offsets_takes_only_known_ones():
    layer = np.full((2, 9, 30), np.nan, np.float32)
    layer[:, 2:7, 3:11] = -4
    blurred = with_error(layer, Offset(), Error(2, 0), np.random.default_rng(0))
    np.testing.assert_allclose(blurred[:, 2:7, 3:11], -4, rtol=1e-5)
    assert np.isfinite(blurred).all()


def test_the_benchmark_prints_all_choices_and_fails_below_the_bound(archive_root, capsys, monkeypatch):
    monkeypatch.setattr(oracle, "BUILDINGS", (4,))
    oracle.oracle(root=archive_root, tiles=6)
    printed = capsys.readouterr().out
    assert all(name in printed for name in RECIPES)
    monkeypatch.setitem(
        RECIPES, "distance to the own border", oracle.Recipe({}, RECIPES["binary components"].polygonizer)
    )
    with pytest.raises(Mismatch):
        oracle.oracle(root=archive_root, tiles=6)
