"""Build the small parts of houses and their gardens, which the radar shows as bright returns, once for each house.

All are in the frame of `sn6.simulation.blocks`. A row of houses is built after one plan: each has the same parts at the
same places, so that their returns repeat with the width of a house; people then change some of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float

from sn6.simulation.ground import Cover, Ground, concatenate, make_objects

KEPT = 0.95  # of the parts of the plan, in each house
THIN = 0.7  # metres: the width of pipes, upstands and fences, at least a pixel
FENCE_HEIGHT = 1.9  # metres
CORNER_SIZE = 1.2  # metres
CORNER_HEIGHT = 0.1  # metres: corners are imaged where they stand


@dataclass(frozen=True)
class Row:
    """A row of houses with party walls along x.

    Attributes:
        west, east: of each house, metres
        south, north: of each house, metres
        eaves: of each house, metres above the ground
        rise: from the eaves to the ridge of each house, 0 for flat roofs
        across: whether the ridge runs from the front to the back, of each house
    """

    west: Float[np.ndarray, " n"]
    east: Float[np.ndarray, " n"]
    south: Float[np.ndarray, " n"]
    north: Float[np.ndarray, " n"]
    eaves: Float[np.ndarray, " n"]
    rise: Float[np.ndarray, " n"]
    across: Bool[np.ndarray, " n"]


def row_details(rng: np.random.Generator, row: Row, faces_south: bool, garden: float) -> Ground:
    """Build the parts of a row: porches, corners, dormers, chimneys, upstands on party walls, garden fences.

    Args:
        rng: draws the plan and what each house has of it
        row: the houses
        faces_south: whether their doors are in the south, their gardens in the north
        garden: length of the gardens in metres, 0 for none
    """
    front, back = (row.south, row.north) if faces_south else (row.north, row.south)
    outward = -1.0 if faces_south else 1.0  # direction of y from the front to the street
    parts = [
        porches(rng, row, front, outward),
        corners(rng, row, front, outward),
        corners(rng, row, back, -outward),
        *roof_details(rng, row),
    ]
    if garden > 0:
        parts.append(fences(rng, row, back, -outward, garden))
    return concatenate(parts)


def porches(rng: np.random.Generator, row: Row, front: Float[np.ndarray, " n"], outward: float) -> Ground:
    """Build a porch or bay before each house, at the same place; mirrored in pairs in some rows."""
    width, depth, height = rng.uniform(1.2, 2.6), rng.uniform(0.8, 1.4), rng.uniform(2.4, 3.2)
    offset = rng.uniform(0.2, 0.8)
    n = len(row.west)
    mirrored = (np.arange(n) % 2 == 1) & (rng.random() < 0.4)
    west = np.where(mirrored, row.east - offset - width, row.west + offset)
    shapes = boxes(west, front, west + width, front + outward * depth)
    kept = rng.random(n) < KEPT * (rng.random() < 0.8)
    return make_objects(rng, Cover.FITTING, shapes[kept], height=height, alike=0.8)


def corners(rng: np.random.Generator, row: Row, wall: Float[np.ndarray, " n"], outward: float) -> Ground:
    """Build corner reflectors at the foot of a facade, one at each party wall: recesses, downpipes, balcony walls."""
    kept = rng.random(len(row.west)) < KEPT
    west = row.west - CORNER_SIZE / 2
    shapes = boxes(west, wall, west + CORNER_SIZE, wall + outward * CORNER_SIZE)
    return make_objects(rng, Cover.CORNER, shapes[kept], height=CORNER_HEIGHT, alike=0.5)


def roof_details(rng: np.random.Generator, row: Row) -> list[Ground]:
    """Build the dormers, chimneys and upstands of roofs."""
    n, middle = len(row.west), (row.south + row.north) / 2
    ridge = row.eaves + row.rise
    chimney = boxes(row.west - 0.5, middle - 0.5, row.west + 0.5, middle + 0.5)
    upstand = boxes(row.west - THIN / 2, row.south, row.west + THIN / 2, row.north)
    has_chimney = rng.random(n) < KEPT * (rng.random() < 0.6)
    has_upstand = np.full(n, rng.random() < 0.85) & (np.arange(n) > 0)
    top = np.maximum(row.eaves, np.roll(row.eaves, 1)) + rng.uniform(0.4, 1.0)  # the higher one of the two houses
    along = np.where(row.across, 0.0, np.minimum(row.rise, np.roll(row.rise, 1)))[has_upstand]
    parts = [
        make_objects(rng, Cover.FITTING, upstand[has_upstand], top[has_upstand], rise=along, alike=0.8),
        make_objects(rng, Cover.FITTING, chimney[has_chimney], ridge[has_chimney] + 1.2, alike=0.5),
    ]
    return parts + [dormers(rng, row, side) for side in (-1.0, 1.0) if rng.random() < 0.5]


def dormers(rng: np.random.Generator, row: Row, side: float) -> Ground:
    """Build a dormer on each house, on the south (-1) or north (1) slope of its roof."""
    width = (row.east - row.west) * rng.uniform(0.35, 0.7)
    west = row.west + (row.east - row.west - width) * rng.uniform(0.2, 0.8)
    slope = (row.north - row.south) / 2
    middle = (row.south + row.north) / 2
    low, high = middle + side * slope * 0.75, middle + side * slope * 0.2
    kept = (rng.random(len(width)) < 0.75) & (row.rise > 0) & ~row.across
    shapes = boxes(west, low, west + width, high)
    return make_objects(rng, Cover.FITTING, shapes[kept], row.eaves[kept] + 0.75 * row.rise[kept], alike=0.7)


def fences(rng: np.random.Generator, row: Row, back: Float[np.ndarray, " n"], outward: float, length: float) -> Ground:
    """Build fences or hedges on the parcel lines behind the houses, and a shed in the same corner of most gardens."""
    n = len(row.west)
    line = boxes(row.west - THIN / 2, back + outward * 0.5, row.west + THIN / 2, back + outward * length)
    kept = rng.random(n) < KEPT
    shed_west = row.west + 0.4
    far = back + outward * length
    shed = boxes(shed_west, far - outward * rng.uniform(1.8, 2.6), shed_west + rng.uniform(1.8, 2.8), far)
    has_shed = rng.random(n) < rng.choice([0.0, 0.5, 0.9])
    return concatenate(
        [
            make_objects(rng, Cover.FENCE, line[kept], height=FENCE_HEIGHT, alike=0.5),
            make_objects(rng, Cover.FENCE, shed[has_shed], height=2.2, alike=0.5),
        ]
    )


def roof_plant(rng: np.random.Generator, bounds: tuple[float, float, float, float], height: float) -> Ground:
    """Build what is on a large flat roof: a parapet, expansion joints that divide it, ventilation, lift houses.

    Args:
        rng: draws number and place
        bounds: west, south, east, north of the roof in metres
        height: of the roof in metres
    """
    west, south, east, north = bounds
    joints = np.arange(west + rng.uniform(6.0, 12.0), east - 4.0, rng.uniform(6.0, 18.0))
    lines = boxes(joints - THIN / 2, np.full(len(joints), south), joints + THIN / 2, np.full(len(joints), north))
    n = int(rng.integers(0, max(2, int((east - west) * (north - south) / 120))))
    x, y = rng.uniform(west + 1, east - 4, n), rng.uniform(south + 1, north - 4, n)
    size = rng.uniform(0.8, 3.0, (2, n))
    plant = boxes(x, y, x + size[0], y + size[1])
    edge = shapely.box(*bounds)
    parapet = edge.difference(edge.buffer(-THIN, join_style="mitre"))
    return concatenate(
        [
            make_objects(rng, Cover.FITTING, [parapet] if rng.random() < 0.6 else [], height=height + 0.6),
            make_objects(rng, Cover.FITTING, lines if rng.random() < 0.5 else [], height=height + 0.3, alike=0.9),
            make_objects(rng, Cover.FITTING, plant, height=height + rng.uniform(0.8, 2.5, n)),
        ]
    )


def boxes(
    x0: Float[np.ndarray, " n"], y0: Float[np.ndarray, " n"], x1: Float[np.ndarray, " n"], y1: Float[np.ndarray, " n"]
) -> np.ndarray:
    """Return rectangles between two opposite corners each."""
    return shapely.box(np.minimum(x0, x1), np.minimum(y0, y1), np.maximum(x0, x1), np.maximum(y0, y1))


def row_of(
    houses: Sequence[shapely.Polygon],
    eaves: Float[np.ndarray, " n"],
    rise: Float[np.ndarray, " n"],
    across: Bool[np.ndarray, " n"],
) -> Row:
    """Return the row of rectangular houses, from west to east."""
    west, south, east, north = shapely.bounds(np.array(houses)).reshape(-1, 4).T
    return Row(west, east, south, north, eaves, rise, across)
