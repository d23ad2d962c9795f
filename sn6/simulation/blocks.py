"""The ways in which a street block is built on, each in the block's own frame: x along the street, y into it.

A way of building is a function of (random numbers, width, depth in metres) that gives the block's Ground within
0..width, 0..depth; cars stand just outside, in the street.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import shapely
from shapely import Point, Polygon, box

from sn6.simulation.ground import Cover, Ground, joined, things

HIGHEST = 40.0  # metres

Way = Callable[[np.random.Generator, float, float], Ground]


def terraces(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """One or two rows of houses with party walls, gardens and sheds between the rows."""
    parts = [lot(rng, Cover.GARDEN, width, depth, trees=9)]
    house, deep = rng.uniform(5.5, 8.0), rng.uniform(8.5, 11.0)
    n = min(int((width - 8) // house), int(rng.integers(5, 10)))
    walls = (width - n * house) / 2 + house * np.arange(n + 1)
    for front in (4.0, depth - 4.0 - deep)[: int(rng.integers(1, 3))]:
        row = [box(a, front, b, front + deep) for a, b in pairwise(walls)]
        parts.append(things(rng, Cover.ROOF, row, height=rng.uniform(7.0, 10.5), pitched=True, alike=True))
        back = front + deep + 4.5 if front == 4.0 else front - 8.0
        gardens = walls[:-1][rng.random(n) < (0.1 if depth > 46.0 else 0.0)]
        sheds = [box(a + 0.5, back, a + 3.5, back + 3.5) for a in gardens]
        parts.append(things(rng, Cover.ROOF, sheds, height=2.5))
    return joined(parts)


def detached(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Two rows of houses that stand alone, some of them with a wing."""
    parts = [lot(rng, Cover.GARDEN, width, depth, trees=16)]
    n = int(width // rng.uniform(19.0, 26.0))
    for x, y in ((x, y) for x in np.arange(n) * width / n for y in (0.0, depth / 2)):
        if rng.random() < 0.15:
            continue
        long, deep = rng.uniform(9.0, 13.0), rng.uniform(7.5, 10.0)
        west, south = x + rng.uniform(2.0, 5.0), y + rng.uniform(5.0, 8.0)
        house = box(west, south, west + long, south + deep)
        if rng.random() < 0.3:
            house = house.union(box(west, south - 3.0, west + 0.45 * long, south + 1.0))
        angle = float(rng.choice([0.0, np.pi / 2]))
        parts.append(things(rng, Cover.ROOF, [house], rng.uniform(5.0, 8.5), angle, pitched=True))
    return joined(parts)


def slabs(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """One or two long blocks of flats among lawns."""
    parts = [lot(rng, Cover.LAWN, width, depth, trees=14)]
    height, thick = rng.choice([10.0, 10.0, 13.0, 13.0, 16.0, 25.0, HIGHEST]), rng.uniform(10.5, 14.0)
    length = width * rng.uniform(0.55, 0.9)
    west = rng.uniform(2.0, width - length - 2.0)
    fronts = (5.0, depth - 5.0 - thick) if depth > 54 and rng.random() < 0.6 else (rng.uniform(5.0, depth - 20.0),)
    rows = [box(west, y, west + length, y + thick) for y in fronts]
    return joined([*parts, things(rng, Cover.ROOF, rows, height=height, alike=True)])


def hall(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """A shop, school or works: one wide flat building, at times with a wing, and its yard."""
    parts = [lot(rng, Cover.PAVING if rng.random() < 0.5 else Cover.LAWN, width, depth, trees=6)]
    long, deep = width * rng.uniform(0.5, 0.85), depth * rng.uniform(0.5, 0.8)
    west, south = rng.uniform(3.0, width - long - 3.0), rng.uniform(3.0, depth - deep - 3.0)
    building = box(west, south, west + long, south + deep)
    if rng.random() < 0.5:
        corner = box(west + 0.6 * long, south + 0.45 * deep, west + long + 1.0, south + deep + 1.0)
        building = building.difference(corner)
    parked = [box(x, 1.0, x + 1.9, 5.4) for x in np.arange(4.0, width - 6.0, 2.7) if rng.random() < 0.35]
    parts.append(things(rng, Cover.CAR, parked if south > 6.5 else [], height=1.5))
    return joined([*parts, things(rng, Cover.ROOF, [building], height=rng.uniform(5.0, 12.0))])


def courtyard(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """A closed or open block around a court."""
    parts = [lot(rng, Cover.PAVING, width, depth, trees=3)]
    long, thick = width * rng.uniform(0.5, 0.85), rng.uniform(10.0, 13.0)
    west = rng.uniform(3.0, width - long - 3.0)
    outer = box(west, 4.0, west + long, depth - 4.0)
    court = outer.buffer(-thick, join_style="mitre")
    parts.append(things(rng, Cover.LAWN, [court]))
    parts.append(scattered_trees(rng, 5, court.bounds))
    opening = rng.random()
    if opening < 0.25:  # a U
        court = court.union(box(west + thick, 0.0, west + long - thick, depth / 2))
    elif opening < 0.45:  # an L
        court = court.union(box(west + thick, 0.0, width, depth - 4.0 - thick))
    building = outer.difference(court)
    return joined([*parts, things(rng, Cover.ROOF, [building], height=rng.uniform(9.0, 18.0))])


def park(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Lawn with trees, a wood where they stand close."""
    return lot(rng, Cover.LAWN, width, depth, trees=int(rng.choice([4, 18, 70])))


def car_park(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Rows of parked cars."""
    bays = [(x, y) for y in np.arange(4.0, depth - 6.0, 12.0) for x in np.arange(5.0, width - 5.0, 2.7)]
    taken = [box(x, y, x + 1.9, y + 4.4) for x, y in bays if rng.random() < 0.4]
    return joined([lot(rng, Cover.PAVING, width, depth, trees=6), things(rng, Cover.CAR, taken, height=1.5)])


def pond(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Water in a lawn."""
    water = Point(0.0, 0.0).buffer(1.0, quad_segs=6)
    rim = np.asarray(water.exterior.coords) * (0.42 * width, 0.38 * depth) + (width / 2, depth / 2)
    lawn = lot(rng, Cover.LAWN, width, depth, trees=0)
    row = scattered_trees(rng, 6, (2.0, 1.0, width - 2.0, 0.1 * depth))
    return joined([lawn, row, things(rng, Cover.WATER, [Polygon(rim)])])


# Shares of the blocks of a 450 m tile, and the power of a scene's density by which each is multiplied.
WAYS: list[tuple[dict[Way, float], float]] = [
    ({terraces: 0.14}, 0.0),
    ({detached: 0.11}, 0.5),
    ({slabs: 0.17, hall: 0.19, courtyard: 0.17}, -1.5),
    ({park: 0.13, car_park: 0.04, pond: 0.05}, -2.0),
]


def lot(rng: np.random.Generator, cover: Cover, width: float, depth: float, trees: int) -> Ground:
    """The bare block: its ground, its trees, and the cars before it."""
    kerb = [box(x, -2.4, x + 4.4, -0.5) for x in np.arange(3.0, width - 6.0, 6.0) if rng.random() < 0.3]
    return joined(
        [
            things(rng, cover, [box(0.0, 0.0, width, depth)]),
            things(rng, Cover.CAR, kerb, height=1.5),
            scattered_trees(rng, trees, (1.0, 1.0, width - 1.0, depth - 1.0)),
        ]
    )


def scattered_trees(rng: np.random.Generator, n: int, bounds: tuple[float, float, float, float]) -> Ground:
    """`n` crowns of 3 to 9 m across, with their centres within `bounds` (west, south, east, north)."""
    crowns = shapely.points(rng.uniform(bounds[:2], bounds[2:], (n, 2)))
    crowns = shapely.buffer(crowns, rng.uniform(1.5, 4.5, n), quad_segs=3)
    return things(rng, Cover.TREE, list(crowns), height=rng.uniform(3.0, 9.0, n))
