"""Test the rendering of pixels: the span, the composite, the contrast of grey, the colours of optical images."""

import numpy as np
import pytest

from sn6.plots.rendering import composite, contrast, grey, render_background, span


def test_the_span_is_the_total_power():
    """Four bands of 10 dB have a power of 40, or 16.02 dB; one band of 30 dB with three of no power has 30 dB."""
    image = np.zeros((4, 1, 2), np.float32)
    image[:, 0, 0] = 10
    image[:, 0, 1] = [30, -300, -300, -300]
    assert span(image)[0] == pytest.approx([16.0206, 30.0], abs=1e-4)


def test_the_composite_is_hh_vv_vh_from_10_to_60_decibels():
    """Three pixels of HH, HV, VH, VV; the last one is nodata."""
    decibels = np.array([[10, 99, 60, 35], [5, 0, 22.5, 70], [50, 50, 50, 50]], np.float32).T[:, None]
    colours = composite(decibels, np.array([[True, True, False]]), ("HH", "HV", "VH", "VV"))
    assert colours.shape == (1, 3, 3)
    np.testing.assert_allclose(colours[0], [[0, 0.5, 1], [0, 1, 0.25], [0, 0, 0]])


def test_grey_scales_the_valid_pixels_only():
    image = np.linspace(20, 40, 10000, dtype=np.float32).reshape(100, 100)
    valid = np.ones((100, 100), bool)
    image[:50], valid[:50] = -1000, False
    out = grey(image, valid)
    assert out[:50].max() == 0
    assert out[50:].min() == 0
    assert out.max() == 1
    assert np.median(out[50:]) == pytest.approx(0.5, abs=0.02)
    assert grey(image, np.zeros_like(valid)).max() == 0


def test_the_contrast_has_the_values_that_are_black_and_white():
    """The percentiles 1 and 99.5 of 0, 1, ..., 1000 are 10 and 995."""
    image = np.arange(1001, dtype=np.float32)[None]
    valid = np.ones((1, 1001), bool)
    assert contrast(image, valid) == pytest.approx((10, 995))
    out = grey(image, valid)[0]
    assert np.flatnonzero(out == 0).max() == 10
    assert np.flatnonzero(out == 1).min() == 995


def test_optical_backgrounds_are_in_true_colour_for_any_order_of_the_bands():
    image = np.random.default_rng(0).uniform(0, 1, (4, 30, 30)).astype(np.float32)
    valid = np.ones((30, 30), bool)
    colours = render_background(image, valid, ["B", "R", "R", "G"])
    assert colours.shape == (30, 30, 3)
    for channel, band in zip(range(3), (1, 3, 0), strict=True):
        assert np.corrcoef(colours[..., channel].ravel(), image[band].ravel())[0, 1] > 0.99
