"""Conversion of labels to polygons, and of a mask to footprints."""

import numpy as np
import pytest
import shapely
from helpers.errors import user_error
from scipy import ndimage
from scipy.special import expit

from sn6.footprints import rotate_polygons
from sn6.footprints.polygonize import polygonize
from sn6.footprints.threshold import Threshold
from sn6.footprints.walls import simplify_outlines
from sn6.targets.rasterize import rasterize_instances


def mask(*rows: str) -> np.ndarray:
    """Read digits as labels, a dot as background."""
    return np.array([[0 if sign == "." else int(sign) for sign in row] for row in rows], dtype=np.int32)


def logits_of(building: np.ndarray, logit: float = 3.0) -> np.ndarray:
    return np.where(building, logit, -logit).astype(np.float32)


def footprints(logits: np.ndarray, valid: np.ndarray | None = None, pixel_size: float = 0.5, **options: float):
    """Convert the sigmoid of logits to footprints; valid everywhere by default."""
    valid = np.ones(logits.shape, dtype=bool) if valid is None else valid
    return Threshold(**options)({"mask": expit(logits)[None]}, valid, pixel_size)


def test_shapes_on_the_pixel_grid_come_back_exactly():
    shapes = [
        shapely.box(1, 1, 4, 9),
        shapely.Polygon([(5, 1), (12, 1), (12, 4), (8, 4), (8, 10), (5, 10)]),  # an L
        shapely.Polygon([(13, 0), (20, 0), (20, 9), (13, 9)], [[(14, 1), (17, 1), (17, 5), (14, 5)]]),
        shapely.box(8, 4, 12, 10),  # shares walls with the L
    ]
    polygons, labels = polygonize(rasterize_instances(shapes, 12, 20))
    assert labels.tolist() == [1, 2, 3, 4]
    assert all(shapely.equals(shape, polygon) for shape, polygon in zip(shapes, polygons, strict=True))


def test_corners_are_only_where_the_outline_turns():
    polygons, _ = polygonize(mask("....", ".11.", ".11."))
    assert sorted(set(polygons[0].exterior.coords)) == [(1, 1), (1, 3), (3, 1), (3, 3)]
    assert len(polygons[0].exterior.coords) == 5


def test_pixels_that_touch_at_a_corner_are_two_regions():
    polygons, labels = polygonize(mask("11..", "11..", "..11", "..11"))
    assert labels.tolist() == [1, 1]
    assert polygons[0].equals(shapely.box(0, 0, 2, 2))
    assert polygons[1].equals(shapely.box(2, 2, 4, 4))


def test_a_hole_that_touches_the_outside_at_a_corner_stays_a_hole():
    polygons, _ = polygonize(mask("1111", "1..1", "1.11", "111."))
    ring = shapely.Polygon(
        [(0, 0), (4, 0), (4, 3), (3, 3), (3, 4), (0, 4)], [[(1, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3)]]
    )
    assert polygons[0].is_valid
    assert polygons[0].equals(ring)
    polygons, _ = polygonize(mask("1111", "1.11", "11.1", "111.", "1111"))
    assert polygons[0].is_valid
    assert len(polygons[0].interiors) == 2
    assert polygons[0].area == 17


def test_a_region_in_the_courtyard_of_the_same_label_is_a_separate_polygon():
    polygons, _ = polygonize(mask("11111111", "1......1", "1.1111.1", "1.1..1.1", "1.1111.1", "1......1", "11111111"))
    assert [(polygon.area, len(polygon.interiors)) for polygon in polygons] == [(26, 1), (10, 1)]
    assert polygons[0].interiors[0].envelope.equals(shapely.box(1, 1, 7, 6).envelope)


@pytest.mark.parametrize("density", [0.2, 0.4, 0.55, 0.7, 0.9])
@pytest.mark.parametrize("values", [1, 3])
def test_the_outlines_of_noise_are_valid_and_exact(density, values):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(5, 45, 2).tolist())
        labels = ((rng.random(shape) < density) * rng.integers(1, values + 1, shape)).astype(np.int32)
        polygons, values_found = polygonize(labels)
        assert shapely.is_valid(polygons).all()
        assert (np.diff(values_found) >= 0).all()
        for value in range(1, values + 1):
            regions, count = ndimage.label(labels == value)
            sizes = np.bincount(regions.ravel())[1:]
            assert sorted(shapely.area(polygons[values_found == value])) == sorted(sizes)
            assert len(sizes) == count
        numbers = rasterize_instances(polygons, *shape)
        assert (np.append(0, values_found)[numbers] == labels).all()


def test_an_empty_map_has_no_outlines():
    polygons, labels = polygonize(np.zeros((7, 9), dtype=np.int32))
    assert len(polygons) == len(labels) == 0
    logits = np.full((7, 9), -1, dtype=np.float32)
    assert len(footprints(logits)) == 0


def test_a_region_of_exactly_20_square_metres_is_kept():
    building = np.zeros((40, 60), dtype=bool)
    building[2:10, 2:12] = True  # 80 pixels
    building[20:28, 2:12] = True
    building[20, 2] = False  # 79
    logits = logits_of(building)
    kept = footprints(logits, simplify=0.0)
    assert [polygon.bounds for polygon in kept.polygons] == [(2, 2, 12, 10)]
    coarse = footprints(logits, pixel_size=1.0, min_area=79.0, simplify=0.0)
    assert [polygon.area for polygon in coarse.polygons] == [80, 79]


def test_the_confidence_is_the_mean_probability_of_the_region():
    logits = np.full((30, 40), -5, dtype=np.float32)
    logits[0:10, 0:10] = 0.5
    logits[0:10, 5:10] = 2.0
    logits[15:25, 20:35] = 1.0
    result = footprints(logits)
    p = [1 / (1 + np.exp(-logit)) for logit in (0.5, 2.0, 1.0)]
    assert result.confidences == pytest.approx([(p[0] + p[1]) / 2, p[2]], abs=1e-6)
    assert [polygon.bounds for polygon in result.polygons] == [(0, 0, 10, 10), (20, 15, 35, 25)]


def test_nothing_is_proposed_on_nodata():
    logits = np.full((20, 30), 4, dtype=np.float32)
    valid = np.zeros((20, 30), dtype=bool)
    valid[:, 10:] = True
    assert footprints(logits, valid).polygons[0].equals(shapely.box(10, 0, 30, 20))
    assert not len(footprints(logits, np.zeros_like(valid)))


def test_a_pixel_above_the_threshold_is_building():
    logits = np.zeros((20, 20), dtype=np.float32)  # probability 0.5
    logits[:, 10:] = 1.0  # probability 0.73
    assert footprints(logits).polygons[0].area == 200
    assert footprints(logits, threshold=0.49).polygons[0].area == 400
    assert footprints(logits, threshold=0.73).polygons[0].area == 200
    assert not len(footprints(logits, threshold=0.74))


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", 0.0), ("threshold", 1.0), ("min_area", -1.0), ("simplify", -0.5)]
)
def test_fields_out_of_range_are_errors(key, value):
    with user_error("invalid_value", key=key, value=value):
        Threshold(**{key: value})


def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(150, 170))
    return ndimage.gaussian_filter(noise, 2.5).astype(np.float32) * 20


@pytest.mark.parametrize("seed", range(6))
def test_simplified_outlines_stay_valid_close_and_large_enough(seed):
    logits = blobs(seed)
    exact = footprints(logits, simplify=0.0)
    simple = footprints(logits, simplify=0.5)
    assert len(simple) == len(exact) > 5
    assert (simple.confidences == exact.confidences).all()
    assert shapely.is_valid(simple.polygons).all()
    assert (shapely.get_type_id(simple.polygons) == shapely.GeometryType.POLYGON).all()
    assert (shapely.area(simple.polygons) >= 80).all()
    corners = shapely.get_num_coordinates
    assert corners(simple.polygons).sum() < 0.6 * corners(exact.polygons).sum()
    outlines = shapely.get_exterior_ring(simple.polygons), shapely.get_exterior_ring(exact.polygons)
    assert (shapely.hausdorff_distance(*outlines) <= 1 + 1e-9).all()  # 0.5 m is one pixel


def test_an_outline_that_would_fall_below_the_minimum_area_is_unchanged():
    stairs = polygonize(np.tril(np.ones((12, 12), dtype=np.int32)))[0]  # 78 px, as a triangle 72
    assert simplify_outlines(stairs, 1.0, 70.0)[0].area < 78
    assert simplify_outlines(stairs, 1.0, 78.0)[0].area == 78


def test_an_outline_that_would_vanish_is_unchanged():
    slab = np.array([shapely.box(0, 0, 30, 1)])
    assert simplify_outlines(slab, 5.0, 0.0)[0].equals(slab[0])


def test_an_outline_of_more_than_the_maximum_of_vertices_is_unchanged():
    comb = np.ones((12, 12_001), dtype=np.int32)
    comb[0, 1::2] = 0
    short = polygonize(comb[:, :1001])[0]
    assert shapely.get_num_coordinates(simplify_outlines(short, 2.0, 0.0))[0] < shapely.get_num_coordinates(short)[0]
    outline = shapely.normalize(polygonize(comb)[0])
    assert simplify_outlines(outline, 2.0, 0.0)[0].equals_exact(outline[0])


@pytest.mark.timeout(60)
def test_the_map_of_an_untrained_network_does_not_take_minutes():
    rng = np.random.default_rng(0)
    logits = logits_of(rng.random((900, 900)) < 0.9)
    result = footprints(logits)
    assert len(result) == 1
    assert result.polygons[0].is_valid


def test_rotating_polygons_equals_rotating_their_mask():
    shapes = np.array([shapely.Polygon([(1, 2), (9, 2), (9, 5), (4, 5), (4, 8), (1, 8)]), shapely.box(11, 0, 14, 2)])
    rotated = rotate_polygons(shapes, 10, 14)
    assert rotated[1].equals(shapely.box(0, 8, 3, 10))
    assert (rasterize_instances(rotated, 10, 14) == np.rot90(rasterize_instances(shapes, 10, 14), 2)).all()
    assert shapely.equals(rotate_polygons(rotated, 10, 14), shapes).all()
    assert shapes[1].equals(shapely.box(11, 0, 14, 2))  # the input is not modified
    assert len(rotate_polygons([], 10, 14)) == 0
