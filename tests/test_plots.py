"""Test the pictures of tiles: footprints in their places, distinguishable colours, readable files."""

from itertools import combinations

import numpy as np
import pytest
import shapely
from helpers.rendered import BLACK, close, pixels_of, window
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from sn6.footprints import Footprints, Labels
from sn6.metrics.matching import Match
from sn6.plots.proposals import proposals_figure, tile_figure
from sn6.plots.tiles import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    PROPOSAL,
    TRUE_POSITIVE,
    TRUTH,
    TileView,
    outline,
    overview_figure,
    round_length,
)

BOXES = np.array([shapely.box(x, 10, x + 10, 20) for x in (5, 25, 45)], dtype=object)
VIEW = TileView(BLACK, 0.5, "t")
BOTH = np.array([True, True])
ONE_MATCH = Match(np.array([1, -1]), BOTH, BOTH, np.array([1.0, 0.0]))  # of boxes 0 and 1 with 1 and 2: box 1
YELLOW = (0.993, 0.906, 0.144)  # the end of the colour bar


def bounds(mask):
    """Return the first and last row, and the first and last column, of the largest region."""
    regions, _ = ndimage.label(mask, np.ones((3, 3)))
    largest = np.bincount(regions.ravel())[1:].argmax() + 1
    rows, columns = np.nonzero(regions == largest)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


def test_holes_are_not_filled(tmp_path):
    ring = shapely.Polygon(shapely.box(8, 8, 56, 56).exterior, [shapely.box(24, 24, 40, 40).exterior])
    figure = Figure(figsize=(2, 2))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 64), ylim=(64, 0))
    axis.add_collection(outline([ring, shapely.Polygon()], facecolors="black"))
    pixels = pixels_of(figure, tmp_path)
    assert pixels[100, 100, 0] == 1  # the centre, in the hole
    assert pixels[100, 50, 0] == 0


def test_outlines_surround_their_pixels(tmp_path):
    """Draw a grey block in rows 20 to 29 and columns 40 to 54, and its outline: they have the same bounds."""
    picture = BLACK.copy()
    picture[20:30, 40:55] = 0.5
    truth = np.array([shapely.box(40, 20, 55, 30)], dtype=object)
    no_match = Match(np.zeros(0, np.int64), np.zeros(0, bool), np.array([True]), np.zeros(0))
    figure = tile_figure(TileView(picture, 0.5, "t"), truth, np.zeros(0, dtype=object), no_match)
    panel = window(figure.axes[0], pixels_of(figure, tmp_path))
    block, line = bounds(close(panel, 0.5)), bounds(close(panel, to_rgb(TRUTH), 0.2))
    assert (np.abs(line - block) <= 3).all()
    scale = np.repeat([len(panel), panel.shape[1]], 2) / 64
    assert (np.abs(block - scale * (20, 30, 40, 55)) <= 3).all()  # north is up


def test_pictures_show_the_colours_of_the_legend(tmp_path):
    figure = tile_figure(TileView(BLACK, 0.5, "t"), BOXES[:2], BOXES[1:], ONE_MATCH)
    pixels = pixels_of(figure, tmp_path / "new")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["figure.png"]
    outcomes = window(figure.axes[2], pixels)
    for column, colour in ((5, FALSE_NEGATIVE), (25, TRUE_POSITIVE), (45, FALSE_POSITIVE)):
        mask = close(outcomes, to_rgb(colour), 0.1)
        assert abs(bounds(mask)[2] - column / 64 * outcomes.shape[1]) <= 2
    assert close(window(figure.axes[0], pixels), to_rgb(TRUTH), 0.4).sum() > 50
    assert close(window(figure.axes[1], pixels), to_rgb(PROPOSAL), 0.4).sum() > 50
    entries = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert entries == ["true positive: 1", "false negative: 1", "false positive: 1"]
    assert figure.axes[2].get_title() == "F1 0.50"


# Linear red, green and blue as seen by a dichromat (Machado, Oliveira, Fernandes 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def cielab(linear):
    """Convert linear sRGB under D65 to L*, a*, b*."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(linear, 1e-3, 1) / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [(TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE), (TRUTH, PROPOSAL)])
def test_colours_can_be_distinguished_with_any_colour_blindness(colours, vision):
    """A difference of 2 is just noticeable; 50 is obvious even in a thin line."""
    seen = [cielab(np.array(VISION[vision]) @ (np.array(to_rgb(colour)) ** 2.2)) for colour in colours]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 50


def test_heights_are_coloured_and_unknown_heights_are_hatched(tmp_path):
    labels = Labels(BOXES, np.array([2.0, np.nan, 20.0]))
    figure = overview_figure({"a": BLACK, "b": BLACK}, VIEW, labels)
    panel = window(figure.axes[2], pixels_of(figure, tmp_path))
    step = len(panel) / 64
    low, unknown, high = (panel[round(12 * step) : round(18 * step), round(x * step)] for x in (10, 30, 50))
    assert close(high, YELLOW).all()
    assert (low[..., 2] > low[..., 0] + 0.1).all()  # blue, the low end
    assert np.ptp(unknown) > 0.5  # black and white
    (entry,) = figure.axes[2].get_legend().get_texts()
    assert entry.get_text() == "height unknown: 1"
    assert figure.axes[-1].get_ylabel() == "mean height in m"


def test_one_tower_does_not_compress_the_colours_of_the_other_buildings(tmp_path):
    """With 100 houses of 10 m and a tower of 200 m, the houses are at the upper end of the colours."""
    boxes = np.array([shapely.box(x, y, x + 4, y + 4) for x in range(0, 60, 6) for y in range(0, 62, 6)], dtype=object)
    heights = np.full(len(boxes), 10.0)
    heights[0] = 200
    figure = overview_figure({"a": BLACK}, VIEW, Labels(boxes, heights))
    panel = window(figure.axes[1], pixels_of(figure, tmp_path))
    step = len(panel) / 64
    assert close(panel[round(32 * step), round(32 * step)], YELLOW)


@pytest.mark.parametrize(("count", "known"), [(1, True), (1, False), (2, False), (7, True)])
def test_an_overview_has_a_panel_for_each_picture_and_its_title_fits(tmp_path, count, known):
    labels = Labels(BOXES, np.full(3, np.nan)) if known else None
    title = (
        "20190822070610_20190822070846_tile_3721\ntrain, strip 2019-08-22 07:06:10 to 07:08:46 UTC, imaged from the "
    )
    figure = overview_figure(
        {f"picture {i}": BLACK for i in range(count)}, TileView(BLACK, 0.5, title + "the north", 0), labels
    )
    pixels_of(figure, tmp_path)
    expected = [f"picture {i}" for i in range(count)] + ["footprints: 3"] * known
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == expected
    heading = figure._suptitle.get_window_extent()
    assert heading.x0 >= 0
    assert heading.x1 <= figure.bbox.width
    assert all(axis.title.get_window_extent().y1 < heading.y0 for axis in figure.axes)


@pytest.mark.parametrize(("orientation", "half"), [(0, "upper"), (1, "lower"), (None, "neither")])
def test_the_side_of_the_radar_is_marked(tmp_path, orientation, half):
    """Orientation 0 is imaged from the north, which is up."""
    panels = []
    for one in (None, orientation):
        figure = overview_figure({"a": BLACK}, TileView(BLACK, 0.5, "t", one), None)
        panels.append(window(figure.axes[0], pixels_of(figure, tmp_path)))
    plain, marked = panels
    rows = np.nonzero((plain != marked).any(axis=(1, 2)))[0] / len(plain)
    assert {"upper": rows.size and rows.max() < 0.2, "lower": rows.size and rows.min() > 0.8, "neither": not rows.size}[
        half
    ]


def test_the_scale_bar_has_its_length(tmp_path):
    """On a tile of 900 px, or 450 m, the bar of 100 m is 200 px long."""
    figure = overview_figure({"a": np.zeros((900, 900), np.float32)}, VIEW, None)
    panel = window(figure.axes[0], pixels_of(figure, tmp_path))
    assert [text.get_text() for text in figure.axes[0].texts if " m" in text.get_text()] == ["100 m"]
    assert bounds(close(panel, 1))[2:] @ (-1, 1) == pytest.approx(panel.shape[1] * 200 / 900, abs=3)


@pytest.mark.parametrize(("longest", "length"), [(112.5, 100), (99.9, 50), (16, 10), (5, 5), (0.3, 0.2)])
def test_scale_bars_have_round_lengths(longest, length):
    assert round_length(longest) == pytest.approx(length)


def test_proposals_without_ground_truth_are_coloured_by_confidence(tmp_path):
    figure = proposals_figure(VIEW, Footprints(BOXES, np.array([0.1, 0.5, 1.0])))
    panel = window(figure.axes[1], pixels_of(figure, tmp_path))
    step = len(panel) / 64
    low, middle, high = (panel[round(15 * step), round(x * step)] for x in (10, 30, 50))
    assert close(high, YELLOW)
    assert low[1] < middle[1] < high[1]  # from blue over green to yellow
