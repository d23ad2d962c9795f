"""The measures at 4.5 m are those of the cells' values, computed here with NumPy and SciPy."""

import numpy as np
import pytest
from scipy.stats import skew

from sn6.datasets.spacenet6 import PRODUCTS
from sn6.inspection.coarse import RadarHistogram
from sn6.inspection.published_comparison import coarse_rows

CELLS = 40  # in rows and columns of a tile


@pytest.fixture
def tiles():
    """Two tiles of 40 x 40 cells of 9 x 9 equal pixels, one half without data, and their cells in decibels."""
    rng = np.random.default_rng(4)
    cells = 30 + rng.gamma(2.0, 3.0, (2, 4, CELLS, CELLS))
    cells[:, 3] = 0.8 * cells[:, 0] + 0.2 * cells[:, 3]
    images = cells.repeat(9, axis=2).repeat(9, axis=3).astype(np.float32)
    valid = np.ones((2, 9 * CELLS, 9 * CELLS), bool)
    valid[1, :, : 9 * 16 + 4] = False  # cuts the cells of column 16
    return images, valid, cells


def test_the_measures_are_those_of_the_cells(tiles):
    images, valid, cells = tiles
    whole, other = RadarHistogram(PRODUCTS["SAR-Intensity"]), RadarHistogram(PRODUCTS["SAR-Intensity"])
    whole.add(images[0], valid[0])
    other.add(images[1], valid[1])
    whole.merge(other)
    values = np.concatenate([cells[0].reshape(4, -1), cells[1, :, :, 17:].reshape(4, -1)], axis=1)
    assert whole.cells.valid_pixels == values.shape[1]
    np.testing.assert_allclose(whole.correlation, np.corrcoef(values), atol=5e-3)
    np.testing.assert_allclose(whole.cells.skewness, skew(values, axis=1), atol=0.02)
    # blocks of 16 x 16 cells: four of the first tile, those without the cut columns of the second
    blocks = [cells[0, :, r : r + 16, c : c + 16] for r in (0, 16) for c in (0, 16)]
    assert whole.blocks == len(blocks)
    np.testing.assert_allclose(
        whole.residual_variance, np.mean([b.var(axis=(1, 2)) for b in blocks], axis=0), rtol=1e-4
    )


def test_the_rows_have_tails_and_correlations(tiles):
    images, valid, cells = tiles
    histogram = RadarHistogram(PRODUCTS["SAR-Intensity"])
    histogram.add(images[0], valid[0])
    rows = {row.name: row for row in coarse_rows(histogram)}
    p1, p50, p99 = np.percentile(cells[0, 0], [1, 50, 99])
    assert rows["HH percentile 99 − 50 at 4.5 m, dB"].value == pytest.approx(p99 - p50, abs=0.1)
    assert rows["HH percentile 50 − 1 at 4.5 m, dB"].value == pytest.approx(p50 - p1, abs=0.1)
    expected = np.corrcoef(cells[0, 0].ravel(), cells[0, 3].ravel())[0, 1]
    assert rows["correlation of HH and VV at 4.5 m"].value == pytest.approx(expected, abs=5e-3)
    assert all(row.within_tolerance is None for row in rows.values())


def test_a_tile_smaller_than_a_cell_has_no_rows():
    histogram = RadarHistogram(PRODUCTS["SAR-Intensity"])
    histogram.add(np.full((4, 8, 8), 30, np.float32), np.ones((8, 8), bool))
    assert coarse_rows(histogram) == []


def test_the_power_is_averaged_not_the_decibels():
    """Of the four pixels that are read in a cell, at rows and columns 2 and 7, three are 20 dB and one is 40 dB."""
    image = np.full((4, 9, 9), 20, np.float32)
    image[:, 7, 2] = 40
    histogram = RadarHistogram(PRODUCTS["SAR-Intensity"])
    histogram.add(image, np.ones((9, 9), bool))
    expected = 10 * np.log10((3 * 100 + 10_000) / 4)
    np.testing.assert_allclose(histogram.cells.mean, expected, atol=0.05)
