"""Test the pictures of maps and of buildings one by one: colours of neighbours, marks, places, directions."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import rasterio
import shapely
from helpers.rendered import BLACK, close, pixels_of, window
from matplotlib.figure import Figure
from shapely import box

from sn6.footprints import Footprints
from sn6.metrics.matching import match_tile
from sn6.plots.instances import NEAR, colours_of, colours_of_tile
from sn6.plots.maps import draw_map, limits, rotate_maps
from sn6.plots.proposals import tile_figure
from sn6.plots.tiles import TileView
from sn6.prediction.pictures import footprints_figure, read_maps

VIEW = TileView(BLACK, 0.5, "t")
NO_PROPOSALS = np.zeros(0, dtype=object)


def streets(rng, rows=8, houses=25):
    """Draw row houses at random distances, some touching."""
    return np.array(
        [
            box(x, y, x + 22, y + rng.uniform(18, 28))
            for y in np.arange(rows) * 34
            for x in np.cumsum(22 + rng.choice([0, 1, 5, 20], houses))
        ],
        dtype=object,
    )


def assert_neighbours_differ(polygons, colours):
    for i, j in combinations(range(len(polygons)), 2):
        if polygons[i].distance(polygons[j]) <= NEAR:
            assert colours[i] != colours[j]


def test_neighbours_have_different_colours_and_all_colours_are_used():
    polygons = streets(np.random.default_rng(0))
    colours = colours_of(polygons)
    assert_neighbours_differ(polygons, colours)
    used = Counter(colours.tolist())
    assert max(used.values()) < 1.5 * min(used.values())
    assert len(used) == 8


def test_a_matched_pair_has_one_colour_and_neighbours_of_each_side_differ():
    rng = np.random.default_rng(1)
    truths = streets(rng, rows=5, houses=15)
    moved = [shapely.affinity.translate(polygon, *rng.uniform(-9, 9, 2)) for polygon in truths]
    drawn = rng.random(len(moved)) < 0.7
    proposals = np.array([polygon for polygon, is_drawn in zip(moved, drawn, strict=True) if is_drawn], dtype=object)
    match = match_tile(truths, proposals, rng.random(len(proposals)))
    assert 10 < match.counts.tp < len(proposals)
    of_truths, of_proposals = colours_of_tile(truths, proposals, match)
    assert_neighbours_differ(truths, of_truths)
    assert_neighbours_differ(proposals, of_proposals)
    pairs = match.true_positives
    assert (of_proposals[pairs] == of_truths[match.truth_of_proposal[pairs]]).all()


def test_a_heap_of_more_polygons_than_colours_is_drawn_too():
    assert len(set(colours_of(np.array([box(i, i, i + 20, i + 20) for i in range(30)], dtype=object)))) == 8
    assert colours_of(NO_PROPOSALS).shape == (0,)


def test_merged_and_split_buildings_are_marked_where_they_are(tmp_path):
    """Upper left: two houses, one proposal. Lower right: one house, two proposals. Upper right: one each."""
    truths = np.array([box(2, 2, 12, 14), box(12, 2, 22, 14), box(40, 40, 60, 60), box(44, 4, 60, 20)], dtype=object)
    proposals = np.array(
        [box(2, 2, 22, 14), box(40, 40, 49, 60), box(51, 40, 60, 60), box(44, 4, 60, 20)], dtype=object
    )
    figure = tile_figure(VIEW, truths, proposals, match_tile(truths, proposals, np.linspace(1, 0.7, 4)))
    split, merged = (axis for axis in figure.axes if axis.get_legend() and axis is not figure.axes[2])
    for axis in (split, merged):
        (entry,) = axis.get_legend().get_texts()
        assert entry.get_text().endswith(": 1")
    pixels = pixels_of(figure, tmp_path)
    boxes = {"left": (2, 2, 22, 14), "right": (44, 4, 60, 20), "below": (40, 40, 60, 60)}
    white = {
        side: {name: white_inside(window(axis, pixels), bounds) for name, bounds in boxes.items()}
        for side, axis in (("truth", split), ("proposals", merged))
    }
    assert {name for name, count in white["truth"].items() if count} == {"below"}
    assert {name for name, count in white["proposals"].items() if count} == {"left"}


def white_inside(panel, bounds):
    """Count the white pixels of a panel inside a box, without the scale bar and the compass, which are elsewhere."""
    step = len(panel) / 64
    x0, y0, x1, y1 = (round(value * step) for value in bounds)
    return close(panel[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3], 1, 0.1).sum()


def block(rows, columns, value, channels=1):
    """Return a map that is 0 but in a block."""
    values = np.zeros((channels, 64, 64), np.float32)
    values[:, rows, columns] = value
    return values


@pytest.mark.parametrize("count", range(8))
def test_each_map_has_a_panel_beside_the_tile(count):
    maps = {f"map {i}": block(slice(8, 9), slice(4, 9), 1, 1 + (i == 2)) for i in range(count)}
    no_match = match_tile(NO_PROPOSALS, NO_PROPOSALS, np.zeros(0))
    figure = tile_figure(VIEW, NO_PROPOSALS, NO_PROPOSALS, no_match, maps)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert [title for title in titles if title.startswith("map")] == list(maps)
    assert len(titles) == 5 + count
    figure.canvas.draw()
    boxes = [axis.get_window_extent() for axis in figure.axes if axis.get_title()]
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    widths = [panel.width for panel in boxes]
    assert max(widths) - min(widths) < 2
    assert all(panel.y0 >= 0 and panel.x1 <= figure.bbox.width for panel in boxes)


def map_pixels(values, folder):
    figure = Figure(figsize=(3, 3.4))
    axis = figure.add_axes((0.1, 0.2, 0.8, 0.7))
    draw_map(axis, "t", values)
    return window(axis, pixels_of(figure, folder))


def test_a_scalar_is_bright_where_it_is_high(tmp_path):
    panel = map_pixels(block(slice(8, 24), slice(32, 60), 1), tmp_path)
    step = len(panel) / 64
    assert panel[round(16 * step), round(46 * step)].sum() > 2.4
    assert panel[round(46 * step), round(16 * step)].sum() < 0.1


def test_a_map_without_values_is_drawn(tmp_path):
    for channels in (1, 2):
        assert map_pixels(np.full((channels, 8, 8), np.nan, np.float32), tmp_path).shape[2] == 3
        assert map_pixels(np.zeros((channels, 8, 8), np.float32), tmp_path).shape[2] == 3


def test_the_colour_bar_reaches_beyond_1_for_more_than_a_few_pixels():
    heights = block(slice(0, 32), slice(None), 2.5)
    assert limits(heights) == (0.0, 2.5)
    assert limits(np.where(heights > 0, 0.5, 0.1)) == (0.0, 1.0)
    assert limits(block(slice(0, 1), slice(0, 9), 40.0)) == (0.0, 1.0)
    assert limits(-heights)[0] == -2.5


def test_directions_of_vectors_have_their_colours(tmp_path):
    """To the centre of a tile from four sides: four colours, the same as on the opposite side of the key."""
    steps = 31.5 - np.arange(64, dtype=np.float32)
    panel = map_pixels(np.stack(np.meshgrid(steps, steps, indexing="ij")), tmp_path)
    step = len(panel) / 64
    left, right, above, below = (
        panel[round(row * step), round(column * step)] for row, column in ((32, 4), (32, 58), (4, 32), (50, 32))
    )
    for one, two in combinations((left, right, above, below), 2):
        assert np.abs(one - two).max() > 0.3
    assert panel[round(32 * step), round(32 * step)].max() < 0.4  # the centre itself has no direction
    assert left[0] == max(left)  # those that point to the right are red


def test_a_rotated_map_has_rotated_vectors():
    """Vectors from each pixel to a point, rotated with the tile, lead from each pixel to the rotated point."""
    rows, columns = np.mgrid[:6, :8].astype(np.float32)
    vectors, mask = np.stack([1 - rows, 5 - columns]), (rows * 8 + columns)[None]
    rotated = rotate_maps({"mask": mask, "offset": vectors})
    assert (rotated["mask"][0, 0, 0], rotated["mask"][0, 5, 7]) == (47, 0)
    assert np.array_equal(rotated["offset"], np.stack([4 - rows, 2 - columns]))


@pytest.mark.parametrize("shape", [(64, 64), (24, 96), (96, 24)])
def test_predicted_footprints_are_drawn_by_confidence_one_by_one_and_with_maps(tmp_path, shape):
    footprints = [Footprints(np.array([box(2, 2, 10, 20), box(10, 2, 18, 20)], dtype=object), np.array([0.6, 0.9]))]
    maps = {"mask": np.zeros((1, *shape), np.float32), "offset": np.zeros((2, *shape), np.float32)}
    figure = footprints_figure(TileView(np.zeros(shape, np.float32), 0.5, "t"), footprints, True, maps)
    pixels = pixels_of(figure, tmp_path)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()][2:] == ["one by one", "mask", "offset"]
    assert figure.axes[1].collections[0].get_clim() == pytest.approx((0.6, 0.9))
    panel = window(figure.axes[2], pixels)
    step = len(panel) / shape[0]
    one, two = (panel[round(11 * step), round(x * step)] for x in (6, 14))
    assert np.abs(one - two).max() > 0.2


def test_the_maps_of_a_prediction_are_read_from_its_raster(tmp_path):
    """Two bands in steps of 1/254 with nodata 255: a rectangle of each, by its name."""
    stored = np.random.default_rng(0).integers(0, 255, (2, 20, 30), dtype=np.uint8)
    stored[:, 5, 7] = 255
    profile = {"driver": "GTiff", "count": 2, "height": 20, "width": 30, "dtype": "uint8", "nodata": 255}
    with rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(0.5, 0, 3, 0, -0.5, 4), **profile) as raster:
        raster.write(stored)
        raster.scales, raster.descriptions = (1 / 254, 1 / 254), ("mask", "contact")
    maps = read_maps(tmp_path / "a.tif", slice(4, 16), slice(6, 30))
    assert list(maps) == ["mask", "contact"]
    for values, band in zip(maps.values(), stored, strict=True):
        assert values.shape == (1, 12, 24)
        assert np.isnan(values[0, 1, 1])
        assert np.isnan(values).sum() == 1
        np.testing.assert_allclose(np.nan_to_num(values[0], nan=255 / 254), band[4:16, 6:30] / 254, rtol=1e-6)
