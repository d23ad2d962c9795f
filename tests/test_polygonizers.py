"""Polygonizers: hand-drawn cases, plain loops over buildings, and blocks against the whole image."""

import heapq
from dataclasses import replace

import numpy as np
import pytest
import shapely
from helpers.errors import user_error
from scipy import ndimage

from sn6.footprints.blocks import footprints_by_blocks
from sn6.footprints.centre_offset import CentreVoting
from sn6.footprints.distance import DistanceWatershed
from sn6.footprints.threshold import Threshold
from sn6.footprints.watershed import SeededWatershed

PIXEL = 0.5
ALL = (
    Threshold(min_area=0.0, simplify=0.0),
    SeededWatershed(min_area=0.0, simplify=0.0),
    DistanceWatershed(min_area=0.0, simplify=0.0, seed=1.0),
    CentreVoting(min_area=0.0, simplify=0.0),
)
DIVIDING = ALL[1:]


def draw(*rows: str, scale: int = 4) -> np.ndarray:
    """Read digits as numbers of buildings, a dot as ground; each sign is a square of `scale` pixels."""
    small = np.array([[0 if sign == "." else int(sign) for sign in row] for row in rows], dtype=np.int32)
    return np.kron(small, np.ones((scale, scale), dtype=np.int32))


def exact_maps(instances: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the maps of instances by loops over buildings and pixels."""
    height, width = instances.shape
    maps = {
        name: np.zeros((1, height, width), np.float32) for name in ("mask", "contact", "edge", "distance", "centre")
    }
    maps["offset"] = np.zeros((2, height, width), np.float32)
    maps["mask"][0] = instances > 0
    padded = np.pad(instances, 3)
    for row, column in np.argwhere(instances > 0):
        near = set(padded[row : row + 7, column : column + 7].ravel().tolist()) - {0}
        maps["contact"][0, row, column] = len(near) > 1
        beside = [padded[row + 3 + r, column + 3 + c] for r, c in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        maps["edge"][0, row, column] = any(other != instances[row, column] for other in beside)
    for number in range(1, instances.max() + 1):
        pixels = np.argwhere(instances == number)
        centre = pixels.mean(axis=0)
        others = np.argwhere(np.pad(instances != number, 1, constant_values=True)) - 1
        for row, column in pixels:
            nearest = np.sqrt(((others - (row, column)) ** 2).sum(axis=1).min())
            maps["distance"][0, row, column] = min(nearest * PIXEL / 5, 1)
            maps["offset"][:, row, column] = (centre - (row, column)) * PIXEL
        squared = ((np.indices(instances.shape) - centre[:, None, None]) ** 2).sum(axis=0)
        maps["centre"][0] = np.maximum(maps["centre"][0], np.exp(-squared / 2 / 3**2))
    return maps


def everywhere(maps: dict[str, np.ndarray]) -> np.ndarray:
    return np.ones(maps["mask"].shape[1:], dtype=bool)


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two label images are equal but for the numbers."""
    pairs = set(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) and ((one > 0) == (other > 0)).all()


def parts_of(instances: np.ndarray) -> np.ndarray:
    """Return instances whose 4-connected parts are numbered one by one."""
    result = np.zeros_like(instances)
    for number in range(1, instances.max() + 1):
        parts = ndimage.label(instances == number)[0]
        result = np.where(parts > 0, parts + result.max(), result)
    return result


DRAWN = {
    "three row houses": draw("............", ".111222333..", ".111222333..", ".111222333..", "............"),
    "a court with a hole": draw("........", ".111111.", ".1....1.", ".1....1.", ".111111.", "........"),
    "a building inside another's hole": draw(
        "111111111111", "111111111111", "11........11", "11..222...11", "11..222...11", "11........11", "111111111111"
    ),
    "a diagonal touch": draw("........", ".111....", ".111....", ".111....", "....222.", "....222.", "....222."),
    "buildings cut by the border": draw("111222..", "111222..", "111222..", "........", "....3333", "....3333"),
    "different sizes": draw("1111111122..", "1111111122..", "11111111....", "11111111....", "............"),
}


@pytest.mark.parametrize("polygonizer", DIVIDING, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", [name for name in DRAWN if "court" not in name and "hole" not in name])
def test_exact_maps_give_the_buildings_back(polygonizer, name):
    instances = DRAWN[name]
    maps = exact_maps(instances)
    if isinstance(polygonizer, SeededWatershed | DistanceWatershed):  # the border of a flood is not that of the houses
        labels = polygonizer.instances(maps, everywhere(maps), PIXEL)
        assert labels.max() == instances.max()
        for number in range(1, instances.max() + 1):
            of_house = labels[instances == number]
            best = np.bincount(of_house).argmax()
            union = ((labels == best) | (instances == number)).sum()
            assert (of_house == best).sum() > 0.85 * union, (name, number)
    else:
        assert same_partition(polygonizer.instances(maps, everywhere(maps), PIXEL), instances)


@pytest.mark.parametrize("polygonizer", ALL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", ["a court with a hole", "a building inside another's hole"])
def test_a_court_keeps_its_hole_and_what_is_in_it(polygonizer, name):
    instances = DRAWN[name]
    maps = exact_maps(instances)
    maps["contact"][:] = 0
    if isinstance(polygonizer, CentreVoting):  # the centre of a court is not in it
        assert not maps["centre"][0][instances == 1].max() > 0.999
    footprints = polygonizer(maps, everywhere(maps), PIXEL)
    if not isinstance(polygonizer, DistanceWatershed | CentreVoting):  # the corners of a court are seeds of their own
        assert len(footprints) == instances.max()
        court = footprints.polygons[np.argmax(shapely.area(shapely.envelope(footprints.polygons)))]
        assert len(court.interiors) == 1
    assert shapely.area(footprints.polygons).sum() == (instances > 0).sum()
    assert shapely.area(shapely.union_all(footprints.polygons)) == (instances > 0).sum()


def test_without_division_row_houses_are_one_footprint_and_a_diagonal_touch_two():
    for name, count in (("three row houses", 1), ("a diagonal touch", 2), ("buildings cut by the border", 2)):
        maps = exact_maps(DRAWN[name])
        footprints = ALL[0](maps, everywhere(maps), PIXEL)
        assert len(footprints) == count
        assert footprints.confidences.tolist() == [1.0] * count


@pytest.mark.parametrize("polygonizer", DIVIDING, ids=lambda one: type(one).__name__)
def test_nodata_cuts_a_building_and_takes_no_part_in_the_flood(polygonizer):
    instances = DRAWN["three row houses"]
    maps, valid = exact_maps(instances), np.ones(instances.shape, dtype=bool)
    valid[:, 20:24] = False  # in the second house
    labels = polygonizer.instances(maps, valid, PIXEL)
    assert not labels[:, 20:24].any()
    left, right = set(labels[:, :20].ravel().tolist()), set(labels[:, 24:].ravel().tolist())
    assert left & right == {0}
    hidden = {name: np.where(valid, values, np.nan).astype(np.float32) for name, values in maps.items()}
    assert (polygonizer.instances(hidden, valid, PIXEL) == labels).all()


def test_a_part_without_a_seed_stays_one_building_and_a_small_seed_does_not_count():
    mask = np.zeros((1, 20, 40), np.float32)
    mask[0, 2:12, 2:32] = 0.6
    mask[0, 4:6, 4:9] = 0.9  # 10 px, 2.5 m²
    mask[0, 4:6, 24:29] = 0.9
    maps = {"mask": mask, "contact": np.zeros_like(mask)}
    split = SeededWatershed(seed=0.8, min_area=0.0, simplify=0.0)
    assert len(split(maps, everywhere(maps), PIXEL)) == 2
    maps["contact"][0, 4, 4] = 1  # 9 px are left of one seed
    assert [polygon.bounds for polygon in split(maps, everywhere(maps), PIXEL).polygons] == [(2, 2, 32, 12)]
    assert len(replace(split, min_seed=2.0)(maps, everywhere(maps), PIXEL)) == 2
    assert len(replace(split, seed=0.95)(maps, everywhere(maps), PIXEL)) == 1


def test_seeds_are_the_mask_times_what_contact_and_edge_leave():
    """m = 0.9, c = 0.5, e = 0.2: m·(1−c)^a·(1−e)^b is 0.9·0.5·0.8 = 0.36, and 0.9·0.25·0.8 = 0.18 for a = 2."""
    mask = np.zeros((1, 20, 40), np.float32)
    mask[0, 4:14, 4:34] = 0.9
    contact, edge = np.zeros_like(mask), np.zeros_like(mask)
    contact[0, 4:14, 18:20], edge[0, 4:14, 18:20] = 0.5, 0.2
    cases = [  # seed, a, b, maps, buildings
        (0.35, 1.0, 1.0, "ce", 1),
        (0.37, 1.0, 1.0, "ce", 2),
        (0.17, 2.0, 1.0, "ce", 1),
        (0.19, 2.0, 1.0, "ce", 2),
        (0.44, 1.0, 1.0, "c", 1),
        (0.46, 1.0, 1.0, "c", 2),
        (0.71, 1.0, 1.0, "e", 1),
        (0.73, 1.0, 1.0, "e", 2),
        (0.73, 0.0, 1.0, "ce", 2),
        (0.71, 0.0, 1.0, "ce", 1),
        (0.37, 1.0, 0.0, "ce", 1),
    ]
    for seed, a, b, names, buildings in cases:
        maps = (
            {"mask": mask} | ({"contact": contact} if "c" in names else {}) | ({"edge": edge} if "e" in names else {})
        )
        polygonizer = SeededWatershed(seed=seed, contact=a, edge=b, min_area=0.0)
        assert polygonizer.instances(maps, everywhere(maps), PIXEL).max() == buildings, (seed, a, b, names)


def test_the_minimum_area_is_of_the_divided_building():
    instances = DRAWN["different sizes"]  # 512 px and 64 px
    maps = exact_maps(instances)
    kept = SeededWatershed(min_area=20.0, simplify=0.0)(maps, everywhere(maps), PIXEL)
    assert len(kept) == 1
    assert 400 < kept.polygons[0].area < 576
    labels = SeededWatershed(min_area=20.0).instances(maps, everywhere(maps), PIXEL)
    assert (labels > 0).sum() == kept.polygons[0].area


def test_the_distance_of_a_seed_is_in_metres():
    instances = draw("1111122222", "1111122222", "1111122222")  # 12 × 20 px each: at most 6 px, 3 m from the border
    maps = exact_maps(instances)
    for seed, expected in ((2.4, 2), (2.9, 2), (3.1, 1)):
        polygonizer = DistanceWatershed(seed=seed, min_area=0.0)
        assert polygonizer.instances(maps, everywhere(maps), PIXEL).max() == expected
    near = {**maps, "distance": maps["distance"] * 2}  # of a target that reaches 2.5 m
    for seed, expected in ((2.4, 2), (1.1, 2)):
        polygonizer = DistanceWatershed(seed=seed, reach=2.5, min_area=0.0)
        assert polygonizer.instances(near, everywhere(maps), PIXEL).max() == expected


def flood(surface: np.ndarray, seeds: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Flood a surface of distinct heights from seeds, pixel by pixel, the lowest first."""
    labels, queue = np.where(inside, seeds, 0), []
    for row, column in np.argwhere(labels > 0):
        heapq.heappush(queue, (surface[row, column], row, column))
    while queue:
        _, row, column = heapq.heappop(queue)
        for r, c in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)):
            if 0 <= r < len(inside) and 0 <= c < inside.shape[1] and inside[r, c] and not labels[r, c]:
                labels[r, c] = labels[row, column]
                heapq.heappush(queue, (surface[r, c], r, c))
    return labels


def noisy_maps(seed: int, shape: tuple[int, int] = (90, 110)) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return smooth random maps without two equal heights, from small buildings to some that fill most of the image."""
    rng = np.random.default_rng(seed)

    def smooth(sigma: float, scale: float) -> np.ndarray:
        values = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
        return (1 / (1 + np.exp(-scale * values / values.std()))).astype(np.float32)[None]

    maps = {name: smooth(3.0, 3.0) for name in ("mask", "contact", "edge", "distance", "centre")}
    maps["offset"] = rng.normal(0, 2, (2, *shape)).astype(np.float32)
    valid = np.ones(shape, dtype=bool)
    valid[30:60, 40:52] = False
    return maps, valid


@pytest.mark.parametrize("kind", [SeededWatershed, DistanceWatershed])
@pytest.mark.parametrize("seed", range(3))
def test_the_flood_equals_a_plain_one(kind, seed):
    maps, valid = noisy_maps(seed)
    area = (maps["mask"][0] > 0.4) & valid
    if kind is SeededWatershed:
        polygonizer = SeededWatershed(0.4, 0.0, 0.0, seed=0.3, min_seed=1.0)
        is_seed = area & (maps["mask"][0] * (1 - maps["contact"][0]) * (1 - maps["edge"][0]) > 0.3)
        surface, least = -maps["mask"][0], 4
    else:
        polygonizer = DistanceWatershed(0.4, 0.0, 0.0, seed=3.0)
        is_seed, surface, least = area & (maps["distance"][0] > 0.6), -maps["distance"][0], 1
    seeds, count = ndimage.label(is_seed)
    for number in range(1, count + 1):
        if (seeds == number).sum() < least:
            seeds[seeds == number] = 0
    components, number = ndimage.label(area)
    expected = flood(surface, seeds, area)
    for one in range(1, number + 1):
        if not expected[components == one].any():
            expected[components == one] = expected.max() + 1
    labels = polygonizer.instances(maps, valid, PIXEL)
    assert labels.max() > number
    assert (labels > 0).sum() == area.sum()
    assert same_partition(labels, expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_votes_equal_plain_ones(seed):
    maps, valid = noisy_maps(seed)
    polygonizer = CentreVoting(0.4, 0.0, 0.0, peak=0.5, radius=1.5)
    components, count = ndimage.label((maps["mask"][0] > 0.4) & valid)
    expected = np.zeros_like(components)
    for number in range(1, count + 1):
        inside = components == number
        centre = np.pad(np.where(inside, maps["centre"][0], 0), 3)
        peaks = [
            (row, column)
            for row, column in np.argwhere(inside)
            if maps["centre"][0, row, column] > 0.5
            and maps["centre"][0, row, column] == centre[row : row + 7, column : column + 7].max()
        ]
        first = expected.max() + 1
        for row, column in np.argwhere(inside):
            vote = np.array([row, column]) + maps["offset"][:, row, column] / PIXEL
            distances = [np.hypot(*(vote - peak)) for peak in peaks]
            expected[row, column] = first + (int(np.argmin(distances)) if len(peaks) > 1 else 0)
    labels = polygonizer.instances(maps, valid, PIXEL)
    assert labels.max() > count
    assert same_partition(labels, parts_of(expected))


@pytest.mark.parametrize("polygonizer", ALL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("block", [16, 40, 64, 200])
def test_blocks_give_exactly_the_footprints_of_the_whole_image(polygonizer, block):
    cleaned = {"fill_holes": 8.0, "opening": 0.6}
    for seed, options in enumerate(
        ({"threshold": 0.3}, {"min_area": 10.0, "simplify": 0.5, **cleaned}, {"threshold": 0.6, **cleaned})
    ):
        maps, valid = noisy_maps(seed, (101, 133))
        maps = {name: np.round(values, 1) for name, values in maps.items()}  # many pixels of equal height
        chosen = replace(polygonizer, **options)

        def read(rows, columns, maps=maps, valid=valid):
            hidden = {name: np.where(valid, values, np.nan) for name, values in maps.items()}
            return {name: values[:, rows, columns] for name, values in hidden.items()}, valid[rows, columns]

        whole = chosen(maps, valid, PIXEL)
        chunks = list(footprints_by_blocks(read, *valid.shape, chosen, PIXEL, block))
        found = [
            (shapely.normalize(polygon).wkt, confidence)
            for chunk in chunks
            for polygon, confidence in zip(chunk.polygons, chunk.confidences.tolist(), strict=True)
        ]
        expected = zip(map(shapely.normalize, whole.polygons), whole.confidences.tolist(), strict=True)
        assert sorted(found) == sorted((polygon.wkt, confidence) for polygon, confidence in expected)
        assert len(found) > 1


@pytest.mark.parametrize("polygonizer", ALL, ids=lambda one: type(one).__name__)
def test_a_component_is_divided_in_the_same_way_whatever_else_is_in_the_image(polygonizer):
    maps, valid = noisy_maps(7)
    maps = {name: np.round(values, 1) for name, values in maps.items()}
    labels = polygonizer.instances(maps, valid, PIXEL)
    components, count = ndimage.label((maps["mask"][0] > 0.5) & valid)
    assert count > 3
    for number in range(1, count + 1):
        alone = polygonizer.instances(maps, valid & (components == number), PIXEL)
        assert same_partition(alone, np.where(components == number, labels, 0))


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        *((kind, "threshold", value) for kind in (Threshold, SeededWatershed) for value in (0.0, 1.0, float("nan"))),
        *((SeededWatershed, key, value) for key, value in (("seed", 1.0), ("min_seed", -1.0), ("contact", -0.5))),
        *((SeededWatershed, "edge", value) for value in (float("inf"), float("nan"), -1.0)),
        *((DistanceWatershed, "seed", value) for value in (0.0, 5.0, 7.0)),
        (DistanceWatershed, "reach", 0.0),
        *((CentreVoting, key, value) for key, value in (("peak", 0.0), ("radius", 0.0), ("min_area", float("nan")))),
    ],
)
def test_fields_out_of_range_are_errors(kind, key, value):
    with user_error("invalid_value", key=key):
        kind(**{key: value})


@pytest.mark.parametrize(
    ("polygonizer", "heads"),
    [
        (SeededWatershed(), ["mask"]),
        (SeededWatershed(), ["contact", "edge"]),
        (DistanceWatershed(), ["mask", "contact"]),
        (CentreVoting(), ["mask", "centre"]),
        (Threshold(), ["height"]),
    ],
)
def test_a_map_that_the_heads_lack_is_an_error(polygonizer, heads):
    with user_error("conflict", key="polygons") as caught:
        polygonizer.check_heads(heads, "polygons")
    assert type(polygonizer).__name__ in str(caught.value)
    assert all(name in str(caught.value) for name in heads)


def test_heads_that_suffice_are_no_error():
    Threshold().check_heads(["mask"], "polygons")
    for heads in (["mask", "contact"], ["mask", "edge"], ["mask", "edge", "contact", "height"]):
        SeededWatershed().check_heads(heads, "polygons")
    DistanceWatershed().check_heads(["mask", "distance"], "polygons")
    CentreVoting().check_heads(["mask", "centre", "offset"], "polygons")
