"""Values in other units than the training data's are recognised; unusual scenes in the right units are not."""

import numpy as np
import pytest

from sn6.data.normalization import Statistics
from sn6.data.units import Sample, find_mismatch
from sn6.datasets.spacenet6 import PRODUCTS

MEAN, STD = np.array([-9.0, -16.0, -15.5, -8.0]), np.array([5.0, 4.0, 4.5, 5.5])  # calibrated decibels
COUNTS, COUNTS_STD = np.array([106.0, 145.0, 152.0, 335.0]), np.array([119.0, 134.0, 160.0, 298.0])  # of 11 bits
RGB, RGB_STD = np.array([94.0, 97.0, 90.0]), np.array([43.0, 39.0, 40.0])  # of 8 bits


def statistics(mean, std):
    return Statistics(tuple(map(float, mean)), tuple(map(float, std)), None)


def normal(mean, std, size=5000):
    return np.random.default_rng(1).normal(np.asarray(mean)[:, None], np.asarray(std)[:, None], (len(mean), size))


def mismatch(values, mean=MEAN, std=STD, product="SAR-Intensity", dtype="float32", scaled=False):
    sample = Sample(np.asarray(values, dtype=np.float32), dtype, scaled)
    return find_mismatch(sample, statistics(mean, std), PRODUCTS[product], PRODUCTS[product].bands)


@pytest.mark.parametrize(("offset", "expected"), [(2.7, None), (3.3, False), (-3.3, False), (5.7, False), (6.3, True)])
def test_a_median_that_is_off_is_a_warning_and_further_off_is_refused(offset, expected):
    """Offsets in standard deviations, of one band."""
    values = normal(MEAN, STD)
    values[2] += offset * STD[2]
    found = mismatch(values)
    assert (found is None) == (expected is None)
    assert found is None or (found.refused == expected and found.deviation == pytest.approx(abs(offset), abs=0.1))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (MEAN, STD),
        (MEAN - 2.5 * STD, [2.2] * 4),  # water alone: the speckle of four looks
        (MEAN + 1.5 * STD, 1.4 * STD),  # a dense city
    ],
)
def test_unusual_scenes_in_decibels_are_no_mismatch(mean, std):
    assert mismatch(normal(mean, std)) is None


def test_a_scene_half_water_half_city_is_no_mismatch():
    assert mismatch(np.concatenate([normal(MEAN - 2 * STD, [2.2] * 4), normal(MEAN + STD, STD)], axis=1)) is None


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize(("divisor", "units"), [(10, "power"), (20, "amplitude")])
def test_linear_values_are_named_though_their_medians_are_close(scale, divisor, units):
    """The median of the first band is at 0.13, less than 2 standard deviations from -9 ± 5."""
    decibels = normal(MEAN, STD) + divisor * np.log10(scale)
    found = mismatch(10 ** (decibels / divisor))
    assert found is not None
    assert units in found.units
    assert f"{divisor}·log10" in found.remedy


def test_another_offset_is_named_in_decibels():
    found = mismatch(normal(MEAN + 40, STD))
    assert found.refused
    assert "+40" in found.units


def test_digital_numbers_and_pictures_are_named():
    picture = normal([20.0, 40.0, 60.0, 80.0], [9.0] * 4).clip(1, 255).round()
    assert "8-bit" in mismatch(picture, dtype="uint8").units
    numbers = (10 ** (normal(MEAN + 60, STD) / 20)).round()
    assert mismatch(numbers, dtype="uint16").refused
    assert "digital" in mismatch(numbers, dtype="uint16").units


def test_whole_decibels_are_a_mismatch_unless_the_file_declares_a_scale():
    """A dark picture has medians and spreads of the published decibels; only that its values are whole betrays it."""
    mean, std = np.array([28.6, 36.1, 33.8, 26.2]), np.array([8.4, 8.3, 8.3, 8.6])
    values = normal(mean, std).clip(1, 255)
    assert mismatch(values, mean, std) is None
    assert not mismatch(values.round(), mean, std, dtype="uint8").refused
    assert mismatch(values.round(), mean, std, dtype="uint8", scaled=True) is None


def test_the_numbers_of_a_recipe_say_nothing_about_the_values():
    assert mismatch(normal(MEAN, STD), np.full(4, 127.5), np.full(4, 31.875)) is None


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (normal(COUNTS + 20, COUNTS_STD / 2).clip(1), "uint16", False),
        (normal(COUNTS / 4, [3.5] * 4), "uint16", False),  # calm water
        (normal(COUNTS / 8, COUNTS_STD / 16).clip(1), "uint8", True),
        (normal(COUNTS, COUNTS_STD / 2).clip(1) / 2047, "float32", True),  # reflectance
        (normal(COUNTS * 32, COUNTS_STD * 16).clip(1), "uint16", True),  # stretched to 16 bits
        (normal(MEAN, STD), "float32", True),  # radar
    ],
)
def test_counts_of_an_optical_product(values, dtype, expected):
    assert (mismatch(values, COUNTS, COUNTS_STD, "PS-RGBNIR", dtype) is not None) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (normal(RGB - 10, RGB_STD / 2).clip(1, 255), False),
        (normal([30.0] * 3, [2.0] * 3), False),  # calm water
        (normal(RGB, RGB_STD / 2).clip(1) / 255, True),
        (normal(COUNTS[:3], COUNTS_STD[:3]).clip(1), True),  # of 11 bits
    ],
)
def test_counts_of_8_bits(values, expected):
    assert (mismatch(values, RGB, RGB_STD, "PS-RGB", "uint8") is not None) == expected
