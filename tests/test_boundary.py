"""The boundary weights against equation 2 as it is written: one full distance transform a building."""

import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sn6.targets.boundary import PixelWeights, boundary_term, class_weights


def weights_by_definition(instances, class_weights, w0, sigma):
    labels = np.unique(instances[instances > 0])
    distances = np.sort([distance_transform_edt(instances != k) for k in labels], axis=0)
    weights = np.where(instances > 0, class_weights[1], class_weights[0]).astype(float)
    if len(distances) > 1:
        weights += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


def boundary_weights(instances, class_weights, w0, sigma):
    """Equation 2 with w_c as given."""
    return np.where(instances > 0, *np.float32(class_weights[::-1])) + boundary_term(instances, w0, sigma)


def random_buildings(rng, shape, number, largest):
    """Rectangles laid over one another: many touch, some are cut into pieces or vanish."""
    instances = np.zeros(shape, np.int32)
    for label in range(1, number + 1):
        top, left = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
        height, width = rng.integers(1, largest, 2)
        instances[top : top + height, left : left + width] = label
    return instances


@pytest.mark.parametrize(
    ("shape", "number", "largest", "w0", "sigma"),
    [
        ((61, 47), 2, 9, 10.0, 5.0),
        ((131, 90), 7, 15, 10.0, 5.0),
        ((64, 97), 40, 12, 10.0, 5.0),
        ((150, 160), 12, 20, 300.0, 2.5),
        ((310, 260), 14, 25, 10.0, 5.0),  # some have no neighbour near
        ((120, 33), 5, 8, 1.0, 20.0),
        ((40, 40), 6, 8, 0.5, 0.3),
        ((40, 40), 6, 8, 0.0, 5.0),
    ],
)
def test_weights_are_those_of_equation_2(shape, number, largest, w0, sigma):
    for seed in range(4):
        instances = random_buildings(np.random.default_rng(seed), shape, number, largest)
        weights = boundary_weights(instances, (0.6, 2.5), w0, sigma)
        expected = weights_by_definition(instances, (0.6, 2.5), w0, sigma)
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=2e-6)


def test_labels_may_have_gaps_and_pass_255():
    instances = random_buildings(np.random.default_rng(1), (80, 80), 9, 12)
    gaps = np.array([0, 3, 900, 256, 512, 7, 65536, 255, 257, 20], np.int32)[instances]
    without = boundary_weights(instances, (1.0, 1.0), 10.0, 5.0)
    np.testing.assert_array_equal(boundary_weights(gaps, (1.0, 1.0), 10.0, 5.0), without)


def test_more_than_255_buildings_are_told_apart():
    """400 houses of 2×2, one pixel apart: in 8 bits number 256 would be no building."""
    house = np.pad(np.ones((2, 2), np.int32), (0, 1))
    instances = np.kron(np.arange(1, 401, dtype=np.int32).reshape(20, 20), house)
    weights = boundary_weights(instances, (1.0, 1.0), 10.0, 5.0)
    np.testing.assert_allclose(weights, weights_by_definition(instances, (1, 1), 10, 5), atol=2e-6)


def test_values_by_hand():
    instances = np.zeros((1, 9), np.int32)
    instances[0, [2, 6]] = [1, 2]  # d1 + d2 is 8, 6, 4, 4, 4, 4, 4, 6, 8
    weights = boundary_weights(instances, (1.0, 3.0), w0=10.0, sigma=5.0)
    sums = np.array([8, 6, 4, 4, 4, 4, 4, 6, 8])
    expected = [w + 10 * math.exp(-(d**2) / 50) for w, d in zip([1, 1, 3, 1, 1, 1, 3, 1, 1], sums, strict=True)]
    np.testing.assert_allclose(weights[0], expected, rtol=1e-6)


def test_a_party_wall_weighs_most():
    """Row houses share walls: at the wall d1 is 0 and the neighbour one pixel away."""
    instances = np.zeros((12, 20), np.int32)
    instances[2:10, 2:10], instances[2:10, 10:18] = 1, 2
    weights = boundary_weights(instances, (1.0, 1.0), w0=10.0, sigma=5.0)
    np.testing.assert_allclose(weights[5, 9:11], 1 + 10 * math.exp(-1 / 50), rtol=1e-6)
    assert weights.max() == weights[5, 9]


@pytest.mark.parametrize("houses", [0, 1])
def test_without_two_buildings_only_the_class_counts(houses):
    instances = np.zeros((30, 40), np.int32)
    instances[5:9, 6:12] = houses
    weights = boundary_weights(instances, (0.7, 1.9), 10.0, 5.0)
    np.testing.assert_array_equal(weights, np.where(instances > 0, np.float32(1.9), np.float32(0.7)))


def test_class_weights_and_boundary_term_add_up_on_any_part_of_a_tile():
    instances = random_buildings(np.random.default_rng(3), (60, 70), 9, 12)
    weights = PixelWeights(w0=10.0, sigma=5.0)
    expected = weights_by_definition(instances, (0.5 / 0.8, 0.5 / 0.2), 10.0, 5.0)[20:50, 10:45]
    boundary = weights.boundary(instances)[20:50, 10:45]
    total = weights.total(instances[20:50, 10:45] > 0, boundary, building_fraction=0.2)
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.9])
def test_classes_share_the_weight_equally_and_its_mean_is_one(fraction):
    background, building = class_weights(fraction)
    assert math.isclose(background * (1 - fraction), building * fraction)
    assert math.isclose(background * (1 - fraction) + building * fraction, 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0, 1])
def test_one_class_alone_weighs_one(fraction):
    assert class_weights(float(fraction)) == (1.0, 1.0)
