"""Test the comparison of archives with the published one, against values computed here with NumPy."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.handmade import speckle, write_labels, write_orientations, write_tile

from sn6.datasets.spacenet6 import PRODUCTS
from sn6.inspection.archive import inspect_archive
from sn6.inspection.comparison_figure import comparison_figure
from sn6.inspection.histograms import Histogram
from sn6.inspection.published_comparison import compare
from sn6.inspection.tables import comparison_table
from sn6.plots.tiles import save_figure
from sn6.simulate import simulate

BANDS = ("HH", "HV", "VH", "VV")


def inspect(root):
    return inspect_archive(root, 1)


def rows_of(inspection):
    return {row.name: row for row in compare(inspection)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The inspection of a simulated archive."""
    root = tmp_path_factory.mktemp("tiny") / "archive"
    simulate(root, scale="tiny")
    return inspect(root)


@pytest.mark.slow
def test_a_simulated_archive_is_near_the_published_one(tmp_path):
    """Twelve tiles: the gains of their three passes move all percentiles together, what they show a part of them."""
    simulate(tmp_path / "archive", tiles=12, test_tiles=0, size=900)
    rows = rows_of(inspect(tmp_path / "archive"))
    for band in BANDS:
        low, median, high = (rows[f"{band} percentile {percent}, dB"] for percent in (1, 50, 99))
        assert abs(median.value - median.published) <= 4
        assert abs((high.value - median.value) - (high.published - median.published)) <= 2
        assert abs((median.value - low.value) - (median.published - low.published)) <= 3.5
    assert all(rows[f"{band} skewness at 4.5 m"].value > 0.3 for band in BANDS)  # a tail on the bright side
    assert 0.10 <= rows["fraction of nodata"].value <= 0.18


@pytest.mark.slow
def test_the_figure_shows_a_tile_and_the_histogram_of_each_band(tiny, tmp_path):
    figure = comparison_figure(tiny)
    save_figure(figure, tmp_path / "comparison.png")
    most = max((tile for tile in tiny.tiles if tile.split == "train"), key=lambda tile: tile.buildings)
    assert figure.get_suptitle().startswith(most.image_id)
    titles = [axis.get_title() for axis in figure.axes]
    assert [title.split(",")[0] for title in titles[:5]] == [*BANDS, "PS-RGB"]
    assert titles[9] == f"footprints: {most.buildings}"
    for axis, band in zip(figure.axes[5:9], BANDS, strict=True):
        assert axis.get_xlabel() == f"{band}, dB"
        (bars,) = axis.patches
        assert bars.get_data().values.sum() == tiny.histograms["SAR-Intensity"].valid_pixels


@pytest.fixture
def handmade(tmp_path):
    """Two tiles, one without nodata and one half nodata, each with a strong pixel; and their valid pixels."""
    images = [speckle(size=64, seed=seed) for seed in (1, 2)]
    images[1][:, :32] = 0
    images[0][2, 5, 5] = 90
    for number, image in enumerate(images, start=1):
        write_tile(tmp_path, "SAR-Intensity", image, number=number)
    name = "20190822070610_20190822070846_tile_1"
    polygon = '"POLYGON ((1 1, 20 1, 20 20, 1 20, 1 1))"'
    write_labels(tmp_path, "".join(f"{name},{i},{polygon},1,1,1\n" for i in range(4)))
    write_orientations(tmp_path)
    return tmp_path, np.concatenate([images[0].reshape(4, -1), images[1][:, 32:].reshape(4, -1)], axis=1)


def test_the_values_are_those_of_the_valid_pixels(handmade):
    root, pixels = handmade
    rows = rows_of(inspect(root))
    for band, values in zip(BANDS, pixels, strict=True):
        for percent in (1, 50, 99):
            expected = np.percentile(values, percent)
            assert rows[f"{band} percentile {percent}, dB"].value == pytest.approx(expected, abs=0.05)
        assert rows[f"{band} mean, dB"].value == pytest.approx(values.mean(), abs=0.01)
        assert rows[f"{band} standard deviation, dB"].value == pytest.approx(values.std(), abs=0.01)
    assert rows["HV percentile 1, dB"].within_tolerance is False  # 5 dB; the published value is 20 dB
    assert rows["largest value, dB"].value == pytest.approx(90, abs=0.01)
    assert rows["fraction of nodata"].value == 0.25
    assert rows["fraction of nodata"].within_tolerance is False
    assert rows["label rows per tile"].value == 2.0  # four, and unknown
    assert not [name for name in rows if "PS-RGBNIR" in name]


def test_the_table_has_a_row_for_each_value(handmade):
    rows = compare(inspect(handmade[0]))
    table = comparison_table(rows)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == [row.name for row in rows]
    assert [float(cell) for cell in cells[1]] == pytest.approx([row.value for row in rows], abs=0.05)
    assert cells[4].count("[bold red]no") == sum(row.within_tolerance is False for row in rows)


def test_the_histogram_of_several_tiles_is_that_of_all_their_pixels():
    rng = np.random.default_rng(0)
    tiles = [rng.gamma(3.0, 6.0, (4, 50, 40)).clip(0.1, 99.9) for _ in range(3)]
    masks = [rng.random((50, 40)) < 0.7 for _ in tiles]
    added, merged = Histogram(PRODUCTS["SAR-Intensity"]), Histogram(PRODUCTS["SAR-Intensity"])
    for tile, mask in zip(tiles, masks, strict=True):
        added.add(tile, mask)
        of_tile = Histogram(PRODUCTS["SAR-Intensity"])
        of_tile.add(tile, mask)
        merged.merge(of_tile)
    np.testing.assert_array_equal(added.counts, merged.counts)
    values = np.concatenate([tile[:, mask] for tile, mask in zip(tiles, masks, strict=True)], axis=1)
    for percent in (1, 25, 99):
        np.testing.assert_allclose(merged.percentile(percent), np.percentile(values, percent, axis=1), rtol=0.02)
    np.testing.assert_allclose(merged.mean, values.mean(axis=1), rtol=1e-3)
    np.testing.assert_allclose(merged.std, values.std(axis=1), rtol=1e-3)
    assert merged.nodata_fraction == pytest.approx(1 - np.mean(masks))
    assert merged.maximum == pytest.approx(values.max(), abs=0.01)


def test_pixels_that_are_not_finite_are_nodata(handmade):
    root, values = handmade
    image = speckle(seed=3)
    image[0, 0, 0] = np.nan
    write_tile(root, "SAR-Intensity", image, number=3)
    inspection = inspect(root)
    histogram = inspection.histograms["SAR-Intensity"]
    assert (histogram.pixels, histogram.valid_pixels) == (3 * 64 * 64, values.shape[1] + 64 * 64 - 1)
    assert comparison_figure(inspection) is not None


def test_an_archive_without_radar_values_is_not_compared(tmp_path):
    write_tile(tmp_path, "SAR-Intensity", np.zeros((4, 64, 64)))
    inspection = inspect(tmp_path)
    assert compare(inspection) == []
    assert comparison_figure(inspection) is None
    shutil.rmtree(next(tmp_path.rglob("SAR-Intensity")))
    write_tile(tmp_path, "PAN", speckle(1))
    inspection = inspect(tmp_path)
    assert compare(inspection) == []
    assert comparison_figure(inspection) is None


def test_the_former_command_refers_to_check():
    done = subprocess.run([sys.executable, "-m", "sn6.statistics", "root=x"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "python -m sn6.check" in line
