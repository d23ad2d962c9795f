"""Compare the maps that heads learn with plain loops over buildings, and with drawings."""

import itertools

import numpy as np
import pytest
import torch
from helpers.labels import labels_of, random_buildings
from scipy.ndimage import distance_transform_edt

from sn6.data.augment import apply_position
from sn6.targets.centre import TOLERANCE, Centre
from sn6.targets.contact import Contact
from sn6.targets.distance import Distance
from sn6.targets.edge import InnerEdge
from sn6.targets.height import Height
from sn6.targets.mask import Mask
from sn6.targets.offset import Offset

DRAWINGS = {
    "three row houses": """
        ...............
        .aaaaabbbbcccc.
        .aaaaabbbbcccc.
        .aaaaabbbbcccc.
        .aaaaabbbbcccc.
        ...............""",
    "a court with a hole": """
        .............
        .aaaaaaaaaaa.
        .aaaaaaaaaaa.
        .aaaaaaaaaaa.
        .aaaa...aaaa.
        .aaaa...aaaa.
        .aaaaaaaaaaa.
        .aaaaaaaaaaa.
        .aaaaaaaaaaa.
        .............""",
    "a building inside another's hole": """
        aaaaaaaaaaaaa
        aaaaaaaaaaaaa
        aa.........aa
        aa..bbbbb..aa
        aa..bbbbb..aa
        aa.........aa
        aaaaaaaaaaaaa
        aaaaaaaaaaaaa""",
    "a diagonal touch": """
        aaaa....
        aaaa....
        aaaa....
        ....bbbb
        ....bbbb
        ....bbbb""",
    "cut by the tile's border": """
        ...aaaaa
        ...aaaaa
        ...aaaaa
        ........
        bb......""",
    "two parts of one building, and a gap in the numbers": """
        aaaa....aaaa..
        aaaa.dd.aaaa..
        .....dd.......""",
    "no building": """
        ...
        ...""",
}
TARGETS = [Mask(), InnerEdge(), Contact(), Distance(), Centre(), Offset(), Height()]


def drawn(text):
    """Return the letters of a drawing as numbers: a is 1, and `.` is background."""
    return np.array([[max(ord(letter) - ord("a") + 1, 0) for letter in row] for row in text.split()])


def scenes():
    """Return instances by name: the drawings, and overlapping rectangles."""
    scenes = {name: drawn(text) for name, text in DRAWINGS.items()}
    for seed, shape, number in ((0, (37, 52), 9), (1, (64, 41), 30), (2, (25, 90), 4)):
        scenes[f"random {seed}"] = random_buildings(np.random.default_rng(seed), shape, number, 24)
    for bits in (8, 16):  # numbers that are equal, or background, in so many bits
        more = 2**bits
        numbers = np.array([0, 1, more, more + 1, 2, more + 2, 2 * more, 2 * more + 1, 3, more + 3], np.int32)
        scenes[f"numbers past {bits} bits"] = numbers[scenes["random 0"]]
    return scenes


SCENES = scenes()
each_scene = pytest.mark.parametrize("name", SCENES)
pixel_sizes = pytest.mark.parametrize("pixel_size", [0.5, 0.3])


def class_name(target):
    return type(target).__name__


def numbers_of(instances):
    return [number for number in np.unique(instances) if number]


def distances_by_building(instances):
    """Compute the distance in pixels to the nearest pixel outside each building, pixels beyond the tile included."""
    distances = np.zeros(instances.shape)
    for number in numbers_of(instances):
        own = np.pad(instances == number, 1)
        distances += distance_transform_edt(own)[1:-1, 1:-1]
    return distances


@each_scene
@pixel_sizes
@pytest.mark.parametrize("reach", [0.2, 1.2, 5.0, 200.0])
def test_distance_equals_a_transform_of_each_building(name, pixel_size, reach):
    instances = SCENES[name]
    layer = Distance(reach).tile(labels_of(instances, pixel_size=pixel_size))
    expected = np.minimum(distances_by_building(instances) * pixel_size / reach, 1)
    np.testing.assert_allclose(layer[0], expected, rtol=1e-6)


@each_scene
@pytest.mark.parametrize(
    ("width", "pixel_size", "pixels"),
    [(0.1, 0.5, 1), (0.5, 0.5, 1), (1.0, 0.5, 2), (2.0, 0.5, 4), (0.6, 0.2, 3), (1.0, 0.3, 3.33)],
)
def test_the_inner_edge_is_what_is_near_the_border_of_each_building(name, width, pixel_size, pixels):
    instances = SCENES[name]
    layer = InnerEdge(width).tile(labels_of(instances, pixel_size=pixel_size))
    distances = distances_by_building(instances)
    np.testing.assert_array_equal(layer[0], (distances > 0) & (distances <= pixels))


@each_scene
@pytest.mark.parametrize(("radius", "pixels"), [(0.1, 1), (0.5, 1), (1.3, 3), (1.5, 3), (2.0, 4), (4.0, 8)])
def test_contacts_are_windows_with_two_buildings(name, radius, pixels):
    instances = SCENES[name]
    layer = Contact(radius).tile(labels_of(instances))
    expected = np.zeros(instances.shape)
    for row, column in np.ndindex(instances.shape):
        top, left = max(row - pixels, 0), max(column - pixels, 0)
        window = instances[top : row + pixels + 1, left : column + pixels + 1]
        expected[row, column] = len(numbers_of(window)) > 1
    np.testing.assert_array_equal(layer[0], expected)


@each_scene
@pixel_sizes
def test_centres_and_offsets_are_those_of_each_building(name, pixel_size):
    instances, sigma = SCENES[name], 1.5
    labels = labels_of(instances, pixel_size=pixel_size)
    heat, offsets = np.zeros(instances.shape), np.full((2, *instances.shape), np.nan)
    rows, columns = np.indices(instances.shape)
    for number in numbers_of(instances):
        own = instances == number
        row, column = rows[own].mean(), columns[own].mean()
        squares = ((rows - row) ** 2 + (columns - column) ** 2) * pixel_size**2
        heat = np.maximum(heat, np.exp(-squares / (2 * sigma**2)))
        offsets[:, own] = (row - rows[own]) * pixel_size, (column - columns[own]) * pixel_size
    np.testing.assert_allclose(Centre(sigma).tile(labels)[0], heat, atol=TOLERANCE)
    np.testing.assert_allclose(Offset().tile(labels), offsets, atol=1e-5)


@each_scene
def test_the_mask_is_all_buildings(name):
    np.testing.assert_array_equal(Mask().tile(labels_of(SCENES[name]))[0], SCENES[name] > 0)


def test_heights_are_in_units_of_10_m_and_unknown_ones_leave_the_loss():
    instances = drawn("""
        .aaabbcc
        .aaabbcc""")
    layer = Height().tile(labels_of(instances, heights=[123.0, 7.5, np.nan, 31.0]))
    np.testing.assert_allclose(layer[0], [[0, 0.75, 0.75, 0.75, np.nan, np.nan, 3.1, 3.1]] * 2)


def test_values_by_hand():
    """Three houses 5, 4 and 4 px wide and 4 px deep: the party walls have edges on both sides and a band of contact."""
    labels = labels_of(SCENES["three row houses"])
    assert InnerEdge(0.5).tile(labels)[0, 2].astype(int).tolist() == [0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0]
    assert (Distance(5.0).tile(labels)[0, 2] * 10).round().tolist() == [0, 1, 2, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 1, 0]
    assert Contact(0.5).tile(labels)[0, 0].astype(int).tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(Offset().tile(labels)[:, 1, 1], [0.75, 1.0])  # 1.5 rows and 2 columns of 0.5 m
    assert Centre(1.5).tile(labels)[0].max() == pytest.approx(np.exp(-0.25 / 2 / 9))  # half a pixel from the centre


def test_a_diagonal_touch_is_a_contact_and_an_edge():
    labels = labels_of(SCENES["a diagonal touch"])
    contact = Contact(0.5).tile(labels)[0]
    assert contact.sum() == 4
    assert contact[2:4, 3:5].all()
    assert Distance().tile(labels)[0, 2, 3] == np.float32(0.1)


def test_a_building_in_a_court_has_a_contact_around_it_where_it_is_near():
    contact = Contact(0.5).tile(labels_of(SCENES["a building inside another's hole"]))[0]
    assert contact[[2, 5], 3:10].all()  # 1 px apart above and below
    assert contact.sum() == 14  # 2 px apart on the left and right


def test_the_border_at_nodata_is_an_edge_by_hand():
    """A building of 3 × 8 pixels; its columns 5 and 6 and its neighbour on the right are under nodata."""
    instances = drawn("""
        ............
        .aaaaaaaabb.
        .aaaaaaaabb.
        .aaaaaaaabb.
        ............""")
    valid = np.ones((5, 12), dtype=bool)
    valid[:, 5:7], valid[:, 9:] = False, False
    labels = labels_of(instances, valid)
    assert InnerEdge(0.5).tile(labels)[0, 2].astype(int).tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0]
    assert (Distance(5.0).tile(labels)[0, 2] * 10).round().tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 1, 0, 0, 0]
    assert not Contact().tile(labels).any()
    centre = (1 + 2 + 3 + 4 + 7 + 8) / 6
    np.testing.assert_allclose(
        Offset().tile(labels)[1, 1],
        0.5 * (np.where(valid[1] & (instances[1] == 1), centre, np.nan) - np.arange(12)),
        rtol=1e-6,
    )


@pytest.mark.parametrize("target", TARGETS, ids=class_name)
def test_nodata_and_what_is_beyond_the_tile_is_no_building(target):
    """A building that continues below nodata or beyond the tile gives what its visible part alone would give."""
    rng = np.random.default_rng(5)
    instances = random_buildings(rng, (60, 70), 14, 26)
    heights = rng.uniform(3, 30, 15)
    valid = np.ones(instances.shape, dtype=bool)
    valid[:, 30:36], valid[20:24] = False, False
    assert instances[~valid].any()
    layer = target.tile(labels_of(instances, valid, heights))
    np.testing.assert_array_equal(layer, target.tile(labels_of(np.where(valid, instances, 0), True, heights)))
    part = target.tile(labels_of(instances[24:, 36:], True, heights))
    larger = np.zeros((50, 50), np.int32)
    larger[4:40, 9:43] = instances[24:, 36:]
    in_larger = target.tile(labels_of(larger, True, heights))[:, 4:40, 9:43]
    np.testing.assert_allclose(part, in_larger, atol=1e-5)


def test_labels_are_not_changed():
    labels = labels_of(SCENES["random 1"], heights=np.arange(31.0))
    before = labels.instances.copy(), labels.heights.copy()
    for target in TARGETS:
        target.tile(labels)
    np.testing.assert_array_equal(before[0], labels.instances)
    np.testing.assert_array_equal(before[1], labels.heights)


@pytest.mark.parametrize("position", list(itertools.product([False, True], range(4))))
def test_a_map_of_a_moved_tile_is_the_moved_map(position):
    instances = torch.from_numpy(SCENES["random 0"])
    moved_labels = labels_of(apply_position(instances[None], position)[0].numpy())
    for target in TARGETS:
        layer = torch.from_numpy(target.tile(labels_of(instances.numpy())))
        before = layer.clone()
        moved = target.transform(apply_position(layer, position), position)
        np.testing.assert_allclose(moved.numpy(), target.tile(moved_labels), atol=1e-5)
        np.testing.assert_array_equal(layer, before)
        batch = np.stack([apply_position(layer, position).numpy()] * 2)
        np.testing.assert_array_equal(target.transform(batch, position)[1], moved)


@pytest.mark.parametrize("target", TARGETS[:5], ids=class_name)
def test_values_are_in_the_range_in_which_they_are_stored(target):
    low, high = target.stored_range
    for instances in SCENES.values():
        layer = target.tile(labels_of(instances))
        assert layer.min(initial=low) >= low
        assert layer.max(initial=high) <= high
