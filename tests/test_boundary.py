"""Compare the boundary weights with equation 2 as written: one full distance transform per building."""

import math

import numpy as np
import pytest
import torch
from helpers.labels import labels_of, random_buildings
from scipy.ndimage import distance_transform_edt

from sn6.targets.boundary import BoundaryWeights, boundary_term, class_weights


def weights_by_definition(instances, class_weights, w0, sigma):
    labels = np.unique(instances[instances > 0])
    distances = np.sort([distance_transform_edt(instances != k) for k in labels], axis=0)
    weights = np.where(instances > 0, class_weights[1], class_weights[0]).astype(float)
    if len(distances) > 1:
        weights += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


def boundary_weights(instances, class_weights, w0, sigma):
    """Compute equation 2 with the given w_c."""
    return np.where(instances > 0, *np.float32(class_weights[::-1])) + boundary_term(instances, w0, sigma)


@pytest.mark.parametrize(
    ("shape", "number", "largest", "w0", "sigma"),
    [
        ((61, 47), 2, 9, 10.0, 5.0),
        ((131, 90), 7, 15, 10.0, 5.0),
        ((64, 97), 40, 12, 10.0, 5.0),
        ((150, 160), 12, 20, 300.0, 2.5),
        ((310, 260), 14, 25, 10.0, 5.0),  # some have no neighbour within reach
        ((120, 33), 5, 8, 1.0, 20.0),
        ((40, 40), 6, 8, 0.5, 0.3),
        ((40, 40), 6, 8, 0.0, 5.0),
    ],
)
def test_weights_are_equal_to_equation_2(shape, number, largest, w0, sigma):
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


def test_more_than_255_buildings_are_distinguished():
    """400 buildings of 2×2, one pixel apart: in 8 bits number 256 would be background."""
    building = np.pad(np.ones((2, 2), np.int32), (0, 1))
    instances = np.kron(np.arange(1, 401, dtype=np.int32).reshape(20, 20), building)
    weights = boundary_weights(instances, (1.0, 1.0), 10.0, 5.0)
    np.testing.assert_allclose(weights, weights_by_definition(instances, (1, 1), 10, 5), atol=2e-6)


def test_values_by_hand():
    instances = np.zeros((1, 9), np.int32)
    instances[0, [2, 6]] = [1, 2]  # d1 + d2 is 8, 6, 4, 4, 4, 4, 4, 6, 8
    weights = boundary_weights(instances, (1.0, 3.0), w0=10.0, sigma=5.0)
    sums = np.array([8, 6, 4, 4, 4, 4, 4, 6, 8])
    expected = [w + 10 * math.exp(-(d**2) / 50) for w, d in zip([1, 1, 3, 1, 1, 1, 3, 1, 1], sums, strict=True)]
    np.testing.assert_allclose(weights[0], expected, rtol=1e-6)


def test_a_party_wall_has_the_largest_weight():
    """At the wall between two row houses d1 is 0 and the neighbour is one pixel away."""
    instances = np.zeros((12, 20), np.int32)
    instances[2:10, 2:10], instances[2:10, 10:18] = 1, 2
    weights = boundary_weights(instances, (1.0, 1.0), w0=10.0, sigma=5.0)
    np.testing.assert_allclose(weights[5, 9:11], 1 + 10 * math.exp(-1 / 50), rtol=1e-6)
    assert weights.max() == weights[5, 9]


@pytest.mark.parametrize("buildings", [0, 1])
def test_fewer_than_two_buildings_have_only_class_weights(buildings):
    instances = np.zeros((30, 40), np.int32)
    instances[5:9, 6:12] = buildings
    weights = boundary_weights(instances, (0.7, 1.9), 10.0, 5.0)
    np.testing.assert_array_equal(weights, np.where(instances > 0, np.float32(1.9), np.float32(0.7)))


def test_class_weights_and_boundary_term_are_added_in_any_window_of_a_tile():
    instances = random_buildings(np.random.default_rng(3), (60, 70), 9, 12)
    weights = BoundaryWeights(w0=10.0, sigma=2.5)
    expected = weights_by_definition(instances, (0.5 / 0.8, 0.5 / 0.2), 10.0, 5.0)[20:50, 10:45]
    boundary = weights.tile(labels_of(instances))[:, 20:50, 10:45]
    mask = (instances[None, 20:50, 10:45] > 0).astype(np.float32)
    total = weights.crop(boundary, mask, building_fraction=0.2)
    np.testing.assert_allclose(total[0], expected, rtol=1e-6, atol=2e-6)
    tensor = weights.crop(torch.from_numpy(boundary), torch.from_numpy(mask), building_fraction=0.2)
    np.testing.assert_array_equal(tensor.numpy(), total)
    class_weight = np.where(mask > 0, np.float32(0.5 / 0.2), np.float32(0.5 / 0.8))
    np.testing.assert_array_equal(total, class_weight + boundary)  # no other rounding than that of the sum


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.9])
def test_both_classes_have_equal_total_weight_and_its_mean_is_one(fraction):
    background, building = class_weights(fraction)
    assert math.isclose(background * (1 - fraction), building * fraction)
    assert math.isclose(background * (1 - fraction) + building * fraction, 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0, 1])
def test_a_single_class_has_weight_one(fraction):
    assert class_weights(float(fraction)) == (1.0, 1.0)
