"""The radar's geometry on a single box: at 35 degrees a metre of height is displaced 1.43 m toward the sensor."""

from dataclasses import replace
from math import radians, tan

import numpy as np
import pytest
import shapely
from scipy.ndimage import gaussian_filter
from shapely import affinity

from sn6.simulation.ground import Cover, Ground, make_objects
from sn6.simulation.radar import Facets, echoes, project, radar_image
from sn6.simulation.scene import Scene
from sn6.simulation.strips import plan_tiles
from sn6.simulation.surface import Surface, rasterize_ground
from sn6.simulation.tile import render_products

NORTH, SOUTH = 0, 1  # look direction: from there
MARGIN = 60  # rows
FOOT, FAR = 110, 150  # rows of the box's walls, without MARGIN: 20 m apart
NO_GAIN = np.zeros(4)
HH, HV, VH, VV = range(4)


def single_box(height: float, cover: Cover = Cover.BITUMEN, columns: int = 300) -> Surface:
    """Return a box across the whole width on a street, without texture."""
    shape = (260 + 2 * MARGIN, columns)
    inside = np.zeros(shape, bool)
    inside[MARGIN + FOOT : MARGIN + FAR] = True
    tone, grain = (np.zeros((numbers, *shape), np.float32) for numbers in (4, 2))
    return Surface(np.where(inside, int(cover), 0), np.where(inside, height, 0).astype(np.float32), tone, grain)


def profile(surface: Surface, orientation: int) -> np.ndarray:
    """Return decibels of HH by row, with the speckle averaged out."""
    image = radar_image(surface, MARGIN, orientation, NO_GAIN, np.random.default_rng(0))
    return 10 * np.log10((10 ** (image[HH] / 10)).mean(axis=1))


@pytest.mark.parametrize("height", [7.0, 14.0])
@pytest.mark.parametrize("orientation", [NORTH, SOUTH])
def test_a_box_has_layover_toward_the_sensor_and_a_shadow_behind_it(height, orientation):
    box = single_box(height)
    observed, empty = profile(box, orientation), profile(replace(box, height=0 * box.height), orientation)
    foot, far = FOOT, FAR
    if orientation == SOUTH:  # rotated by 180°, all tiles look alike
        observed, empty = observed[::-1], empty[::-1]
        foot, far = 260 - FAR, 260 - FOOT
    street = empty[:40].mean()
    layover = round(height / tan(radians(35)) / 0.5)  # rows: 20 and 40
    shadow = round(height * tan(radians(35)) / 0.5)  # 10 and 20
    assert np.abs(observed[: foot - layover - 2] - street).max() < 1.5
    assert (observed[foot - layover + 2 : foot] > street + 3).all()  # the wall, and the roof displaced as far
    assert abs(int(observed.argmax()) - foot) <= 1  # the double bounce
    assert observed[foot - 1 : foot + 1].max() > observed[foot - layover + 2 : foot - 3].max() + 3
    dark = observed[far - layover + 2 : far + shadow - 1]  # from the displaced end of the roof to the end of the shadow
    assert dark.max() < street - 2.5
    assert dark.mean() < street - 5
    assert np.abs(observed[far + shadow + 2 :] - street).max() < 1.5


def test_rotated_by_180_degrees_a_tile_from_the_south_looks_like_one_from_the_north():
    box = single_box(14.0)
    mirror = Surface(*(getattr(box, name)[..., ::-1, :] for name in ("cover", "height", "tone", "grain")))
    assert np.abs(profile(box, NORTH) - profile(mirror, SOUTH)[::-1]).max() < 1.5
    assert np.abs(profile(box, NORTH) - profile(box, SOUTH)).max() > 20


def test_the_nearer_of_two_boxes_hides_the_farther():
    """A low box in the shadow of a high one is invisible."""
    box = single_box(20.0)  # its shadow: 14 m, 28 rows
    with_low = np.array(box.height)
    with_low[MARGIN + FAR + 6 : MARGIN + FAR + 16] = 3.0
    cover = np.where(with_low > 0, int(Cover.BITUMEN), 0)
    rng = np.random.default_rng
    single, _ = echoes(box, rng(0))
    both, _ = echoes(replace(box, height=with_low, cover=cover), rng(0))
    np.testing.assert_allclose(both, single)


def test_the_projection_preserves_power():
    rng = np.random.default_rng(3)
    n, shape = 500, (90, 40)
    facets = Facets(rng.integers(0, 40, n), rng.uniform(10, 80, n), rng.uniform(10, 80, n), rng.random((4, n)))
    image = project([facets], shape)
    np.testing.assert_allclose(image.sum(axis=(1, 2)), facets.power.sum(axis=1), rtol=1e-9)
    one = Facets(np.array([7]), np.array([22.5]), np.array([20.0]), np.full((4, 1), 5.0))
    column = project([one], shape)[HH, :, 7]
    np.testing.assert_allclose(column[19:24], [0, 2, 2, 1, 0], atol=1e-9)  # 2.5 rows: the third gets half


def ground_of(shape: shapely.Polygon, cover: Cover, height: float, **more: float) -> Ground:
    ground = make_objects(np.random.default_rng(0), cover, [shape], height, **more)
    return replace(ground, tone=np.zeros((1, 4)))


def quiet(ground: Ground, size: int = 240) -> Surface:
    """Return a surface without grain."""
    surface = rasterize_ground(ground, 0, 591000.0, 5750000.0, (size, size))
    return replace(surface, grain=np.zeros_like(surface.grain))


@pytest.mark.parametrize("band", [HH, VV])
def test_the_double_bounce_decreases_with_the_angle_between_wall_and_flight_line(band):
    house = shapely.box(591040.0, 5749930.0, 591080.0, 5749945.0)
    peaks = []
    for angle in (0.0, 15.0, 40.0):
        ground = ground_of(affinity.rotate(house, angle), Cover.BITUMEN, 9.0)
        power, _ = echoes(quiet(ground), np.random.default_rng(0))
        peaks.append(10 * np.log10(np.sort(power[band].ravel())[-60:].mean()))
    assert peaks[0] > peaks[1] + 4 > peaks[2] + 4


def test_the_double_bounce_is_stronger_in_the_copolar_bands():
    """Compare it with the wall itself in each band."""
    image = 10 * np.log10(echoes(single_box(14.0), np.random.default_rng(0))[0].mean(axis=2))
    foot, wall = image[:, MARGIN + FOOT - 2 : MARGIN + FOOT + 1].max(axis=1), image[:, MARGIN + FOOT - 15]
    gain = foot - wall
    assert min(gain[HH], gain[VV]) > max(gain[HV], gain[VH]) + 3


def test_a_roof_perpendicular_to_the_wave_glints():
    """The near side of a gable roof of 35 degrees returns more than a flat roof."""
    house = shapely.box(591030.0, 5749930.0, 591090.0, 5749950.0)
    ground = ground_of(house, Cover.TILES, 0.5, rise=7.0)
    power, _ = echoes(quiet(ground), np.random.default_rng(0))
    flat = ground_of(house, Cover.TILES, 0.5)
    plain, _ = echoes(quiet(flat), np.random.default_rng(0))
    brightest = power[HH, :, 80:160].mean(axis=1).max()
    assert 10 * np.log10(brightest / plain[HH, 105:135, 80:160].mean()) > 12


def test_water_is_dark_and_trees_are_bright_in_crosspolarisation():
    level = {}
    for cover in (Cover.WATER, Cover.STREET, Cover.LAWN, Cover.TREE):
        power, _ = echoes(replace(single_box(0.0), cover=np.full((380, 300), int(cover))), np.random.default_rng(0))
        level[cover] = 10 * np.log10(power[:, 150].mean(axis=1))
    assert (level[Cover.WATER] < level[Cover.STREET] - 8).all()
    ratio = {cover: level[cover][HV] - level[cover][HH] for cover in level}
    assert ratio[Cover.TREE] > ratio[Cover.LAWN] + 2


def test_a_strong_point_has_sidelobes_in_a_cross():
    box = single_box(0.0)
    grain = np.zeros_like(box.grain)
    grain[1, 190, 150] = 5.0
    points = echoes(replace(box, grain=grain), np.random.default_rng(0))[1][HH]
    assert points.argmax() == 190 * 300 + 150
    for along in (points[190 - 12 : 190 + 13, 150], points[190, 150 - 12 : 150 + 13]):
        assert along.max() == along[12]
        assert along[[10, 14]].min() > 1e-3 * along[12]
        assert along[[0, 1, 23, 24]].max() < 1e-2 * along[12]
    assert points[192, 152] < 0.1 * points[192, 150]  # nothing outside the cross


def test_the_gain_of_a_pass_is_added_to_every_pixel_and_no_value_falls_to_nodata():
    box = single_box(7.0)
    images = [
        radar_image(box, MARGIN, NORTH, gain, np.random.default_rng(0))
        for gain in (NO_GAIN, np.array([-3.0, 0, 1, -60]))
    ]
    change = images[1] - images[0]
    np.testing.assert_allclose(np.median(change[:3], axis=(1, 2)), [-3, 0, 1], atol=1 / 64)
    assert images[1][VV].min() == np.float32(1e-5)


def test_a_pass_is_displaced_by_its_offset_in_the_radar_and_not_in_the_optical_images():
    """4 m too far east and 3 m too far north: 8 columns to the right, 6 rows up."""
    planned = plan_tiles(4, 0, 256, seed=1)
    scene = Scene(1, 3.0, ())
    rendered = []
    for offset in ((0.0, 0.0), (4.0, 3.0)):
        tile = replace(planned[1], strip=replace(planned[1].strip, offset=offset))
        rendered.append(render_products(scene, tile))
    before, after = (gaussian_filter(image["SAR-Intensity"][HH], 1.5)[40:200, 40:200] for image in rendered)
    likeness = {
        (rows, columns): np.corrcoef(np.roll(before, (rows, columns), (0, 1))[20:-20, 20:-20].ravel(), inner)[0, 1]
        for rows in range(-10, 11, 2)
        for columns in range(-10, 11, 2)
        for inner in [after[20:-20, 20:-20].ravel()]
    }
    assert max(likeness, key=likeness.__getitem__) == (-6, 8)
    np.testing.assert_array_equal(rendered[0]["PAN"], rendered[1]["PAN"])
    assert all(np.isfinite(image["SAR-Intensity"]).all() for image in rendered)
