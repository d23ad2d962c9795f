"""The speckle of a flat field has the statistics of circular Gaussian fields."""

import numpy as np
import pytest

from sn6.simulation.speckle import COPOLAR, LOOKS, NEIGHBOURS, add_speckle

HH, HV, VH, VV = range(4)
SIZE = 500


@pytest.fixture(scope="module")
def flat():
    """A signal of 100 in every band, without noise."""
    return add_speckle(np.full((4, SIZE, SIZE), 100.0, np.float32), np.zeros(4, np.float32), np.random.default_rng(1))


def correlation(one, other):
    """Return the correlation coefficient of two images."""
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.mark.parametrize("band", [HH, HV, VH, VV])
def test_a_flat_field_has_its_mean_and_the_stated_looks(flat, band):
    assert flat[band].mean() == pytest.approx(100, rel=0.01)
    assert flat[band].mean() ** 2 / flat[band].var() == pytest.approx(LOOKS, rel=0.03)


def test_only_adjacent_pixels_correlate_and_as_stated(flat):
    band = flat[HH]
    assert correlation(band[:, 1:], band[:, :-1]) == pytest.approx(NEIGHBOURS, abs=0.01)
    assert correlation(band[1:], band[:-1]) == pytest.approx(NEIGHBOURS, abs=0.01)
    assert abs(correlation(band[:, 3:], band[:, :-3])) < 0.01


def test_the_copolar_bands_correlate_partly_and_the_crosspolar_ones_fully(flat):
    """The correlation of intensities is the square of the complex correlation of the fields."""
    assert correlation(flat[HH], flat[VV]) == pytest.approx(COPOLAR**2, abs=0.02)
    assert correlation(flat[HV], flat[VH]) == pytest.approx(1, abs=1e-6)
    assert abs(correlation(flat[HH], flat[HV])) < 0.02


def test_noise_adds_its_power_and_decorrelates_the_crosspolar_bands():
    """HV and VH have the same signal, so their coherence is signal / (signal + noise)."""
    noise = np.array([50.0, 50.0, 50.0, 50.0], np.float32)
    image = add_speckle(np.full((4, SIZE, SIZE), 100.0, np.float32), noise, np.random.default_rng(2))
    np.testing.assert_allclose(image.mean(axis=(1, 2)), 150, rtol=0.01)
    assert correlation(image[HV], image[VH]) == pytest.approx((100 / 150) ** 2, abs=0.02)
    assert correlation(image[HH], image[VV]) == pytest.approx((COPOLAR * 100 / 150) ** 2, abs=0.02)
