"""Pictures: the span, the backdrops, and files that open."""

import matplotlib.image
import numpy as np
import pytest
import shapely
from matplotlib.figure import Figure

from sn6.figures import backdrop, curves_figure, grey, outline, save, span, tile_figure
from sn6.footprints.matching import Match


def test_the_span_is_the_total_power():
    """Four bands of 10 dB are 40 in power, 16.02 dB; one of 30 dB beside zeros of -inf stays 30 dB."""
    image = np.zeros((4, 1, 2), np.float32)
    image[:, 0, 0] = 10
    image[:, 0, 1] = [30, -300, -300, -300]
    assert span(image)[0] == pytest.approx([16.0206, 30.0], abs=1e-4)


def test_grey_stretches_over_valid_pixels_alone():
    image = np.linspace(20, 40, 10000, dtype=np.float32).reshape(100, 100)
    valid = np.ones((100, 100), bool)
    image[:50], valid[:50] = -1000, False
    out = grey(image, valid)
    assert out[:50].max() == 0
    assert out[50:].min() == 0
    assert out.max() == 1
    assert np.median(out[50:]) == pytest.approx(0.5, abs=0.02)
    assert grey(image, np.zeros_like(valid)).max() == 0


def test_optical_backdrops_are_in_true_colour_whatever_the_order_of_the_bands():
    image = np.random.default_rng(0).uniform(0, 1, (4, 30, 30)).astype(np.float32)
    valid = np.ones((30, 30), bool)
    colours = backdrop(image, valid, ["B", "R", "R", "G"])
    assert colours.shape == (30, 30, 3)
    for channel, band in zip(range(3), (1, 3, 0), strict=True):
        assert np.corrcoef(colours[..., channel].ravel(), image[band].ravel())[0, 1] > 0.99


def test_holes_stay_holes(tmp_path):
    ring = shapely.Polygon(shapely.box(8, 8, 56, 56).exterior, [shapely.box(24, 24, 40, 40).exterior])
    figure = Figure(figsize=(2, 2))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 64), ylim=(64, 0))
    axis.add_collection(outline([ring, shapely.Polygon()], facecolors="black"))
    figure.savefig(tmp_path / "ring.png", dpi=100)
    pixels = matplotlib.image.imread(tmp_path / "ring.png")[..., 0]
    assert pixels[100, 100] == 1  # the middle, in the hole
    assert pixels[100, 50] == 0


def test_pictures_open_and_show_the_colours_of_the_legend(tmp_path):
    boxes = [shapely.box(x, 10, x + 10, 20) for x in (5, 25, 45)]
    everything = np.array([True, True])
    match = Match(np.array([1, -1]), everything, everything)  # the middle box is hit, the outer ones are not
    figure = tile_figure(np.zeros((64, 64), np.float32), boxes[:2], boxes[1:], match, "t")
    path = tmp_path / "figures" / "tile.png"
    save(figure, path)
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] == 1650
    assert [file.name for file in path.parent.iterdir()] == ["tile.png"]
    for colour in ((0x21, 0xC4, 0x6B), (0xFF, 0xB0, 0x00), (0xFF, 0x3B, 0x6B)):  # hit, missed, invented
        assert (np.abs(pixels[..., :3] - np.array(colour) / 255).max(axis=-1) < 0.02).sum() > 50


def test_curves_are_drawn_from_what_was_logged(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/f1\n0,0.7,\n1,0.5,\n1,,0.25\n")
    left, right = curves_figure(path).axes
    (loss,) = left.lines
    assert loss.get_xdata().tolist() == [0, 1]
    assert loss.get_ydata().tolist() == [0.7, 0.5]
    (f1,) = right.lines
    assert f1.get_ydata().tolist() == [0.25]
