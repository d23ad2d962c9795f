"""The ways in which a street block is built on, each in the block's own frame: x along the street, y into it.

A way of building is a function of (random numbers, width, depth in metres) that gives the block's Ground within
0..width, 0..depth; cars and trees stand just outside, in the street. Sizes are those usual in Dutch towns: houses
of a row 5.4 to 7.6 m wide and 8.5 to 10.5 m deep, two storeys under a roof; walk-up flats of three to four
storeys; slabs of four to eight, towers up to 90 m.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from shapely import box

from sn6.simulation.ground import Cover, Ground, joined, things
from sn6.simulation.parcels import lot, parked, scattered_trees

STOREY = 2.9  # metres
HIGHEST = 90.0  # metres: no building is higher

Way = Callable[[np.random.Generator, float, float], Ground]


def terraces(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """One or two rows of houses with party walls, gardens and sheds between the rows."""
    parts = [lot(rng, Cover.GARDEN, width, depth, trees=8)]
    house, deep = rng.uniform(5.4, 7.6), rng.uniform(8.5, 10.5)
    eaves, pitched = STOREY * rng.choice([2, 2, 3]) - 0.3, rng.random() < 0.8
    n = min(int((width - 6) // house), int(rng.integers(4, 9)))
    walls = (width - n * house) / 2 + house * np.arange(n + 1)
    roof, rise = (Cover.TILES, rng.uniform(2.8, 4.0)) if pitched else (flat_roof(rng), 0.0)
    for front in (4.0, depth - 4.0 - deep)[: int(rng.choice([1, 2, 2]))]:
        steps = rng.choice([0.0, 0.0, 0.0, 1.5], n)  # some houses stand back
        row = [box(a, front + s, b, front + s + deep) for (a, b), s in zip(pairwise(walls), steps, strict=True)]
        parts.append(things(rng, roof, row, height=eaves, rise=rise, alike=True))
        back = front + deep + 5.0 if front == 4.0 else front - 8.5
        gardens = walls[:-1][rng.random(n) < (0.12 if depth > 46.0 else 0.0)]
        sheds = [box(a + 0.3, back, a + 3.3, back + rng.uniform(2.2, 5.0)) for a in gardens]
        parts.append(things(rng, Cover.BITUMEN, sheds, height=2.5))
    return joined(parts)


def perimeter(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """A closed block of town houses with party walls around gardens, each house of its own width and height."""
    parts = [lot(rng, Cover.GARDEN, width, depth, trees=8)]
    deep, eaves = rng.uniform(9.5, 12.0), STOREY * rng.choice([3, 3, 4])
    fronts = [(2.0, 2.0), (depth - 2.0 - deep, depth - 2.0 - deep)]
    pitched = rng.random() < 0.4
    for south, _ in fronts:
        walls = party_walls(rng, 2.0, width - 2.0)
        for a, b in pairwise(walls):
            house = box(a, south, b, south + deep + rng.choice([-1.0, 0.0, 0.0, 2.0]) * (south == 2.0))
            roof, rise = (Cover.TILES, rng.uniform(2.0, 4.0)) if pitched else (flat_roof(rng), 0.0)
            parts.append(things(rng, roof, [house], height=eaves + rng.choice([-STOREY, 0.0, 0.0]), rise=rise))
    for west in (2.0, width - 2.0 - deep):
        if rng.random() < 0.7:
            for a, b in pairwise(party_walls(rng, 2.0 + deep + 2.0, depth - 2.0 - deep)):
                parts.append(things(rng, flat_roof(rng), [box(west, a, west + deep, b)], height=eaves))
    return joined(parts)


def party_walls(rng: np.random.Generator, start: float, end: float) -> list[float]:
    """Where houses of 6 to 14 m meet between `start` and `end`; the last takes what is left."""
    walls = [start]
    while end - walls[-1] > 21.0:
        walls.append(walls[-1] + rng.uniform(6.0, 14.0))
    return [*walls, end]


def detached(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Two rows of houses that stand alone or in pairs, some of them with a wing or a garage."""
    parts = [lot(rng, Cover.GARDEN, width, depth, trees=18)]
    n = int(width // rng.uniform(17.0, 24.0))
    for x, y in ((x, y) for x in np.arange(n) * width / n for y in (0.0, depth / 2)):
        if rng.random() < 0.12:
            continue
        long, deep = rng.uniform(8.5, 12.0), rng.uniform(7.5, 10.0)
        west, south = x + rng.uniform(1.5, 3.5), y + rng.uniform(5.0, 8.0)
        house = box(west, south, west + long, south + deep)
        height, rise = rng.uniform(3.0, 6.0), rng.uniform(2.5, 4.5)
        angle = float(rng.choice([0.0, np.pi / 2]))
        if rng.random() < 0.3:
            house = house.union(box(west, south - 3.0, west + 0.45 * long, south + 1.0))
        if rng.random() < 0.35:  # a pair under one roof
            halves = [box(a, south, a + long / 2, south + deep) for a in (west, west + long / 2)]
            parts.append(things(rng, Cover.TILES, halves, height, rise=rise, alike=True))
        else:
            parts.append(things(rng, Cover.TILES, [house], height, angle, rise))
        if rng.random() < 0.2:
            garage = box(west + long + 0.8, south, west + long + 3.8, south + 5.5)
            parts.append(things(rng, Cover.BITUMEN, [garage], height=2.6))
    return joined(parts)


def slabs(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """One or two long blocks of flats among lawns."""
    parts = [lot(rng, Cover.LAWN, width, depth, trees=14)]
    height, thick = STOREY * rng.choice([4, 4, 4, 5, 8, 8, 13]), rng.uniform(10.5, 13.0)
    length = width * rng.uniform(0.55, 0.9)
    west = rng.uniform(2.0, width - length - 2.0)
    fronts = (5.0, depth - 5.0 - thick) if depth > 54 and rng.random() < 0.6 else (rng.uniform(5.0, depth - 20.0),)
    rows = [box(west, y, west + length, y + thick) for y in fronts]
    return joined([*parts, things(rng, flat_roof(rng), rows, height=height, alike=True)])


def towers(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """One or two high-rise buildings, each beside a low wing."""
    parts = [lot(rng, Cover.PAVING, width, depth, trees=10)]
    for x in (0.0, width / 2)[: int(rng.integers(1, 3))]:
        side = rng.uniform(16.0, min(26.0, 0.42 * width))
        west, south = x + rng.uniform(2.0, max(width / 2 - side - 2.0, 2.5)), rng.uniform(4.0, depth - side - 4.0)
        height = float(np.clip(40.0 * np.exp(0.35 * rng.standard_normal()), 25.0, HIGHEST))
        parts.append(things(rng, flat_roof(rng), [box(west, south, west + side, south + side)], height=height))
    return joined(parts)


def hall(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """A shop, school or works: one wide flat building, at times with a wing, and its yard."""
    parts = [lot(rng, Cover.PAVING if rng.random() < 0.5 else Cover.LAWN, width, depth, trees=6)]
    long, deep = width * rng.uniform(0.45, 0.8), depth * rng.uniform(0.4, 0.75)
    west, south = rng.uniform(3.0, width - long - 3.0), rng.uniform(3.0, depth - deep - 3.0)
    building = box(west, south, west + long, south + deep)
    if rng.random() < 0.5:
        corner = box(west + 0.6 * long, south + 0.45 * deep, west + long + 1.0, south + deep + 1.0)
        building = building.difference(corner)
    if south > 6.5:
        parts.append(parked(rng, width, 1.0, 0.35))
    return joined([*parts, things(rng, flat_roof(rng), [building], height=rng.uniform(4.0, 11.0))])


def courtyard(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """A closed or open building around a court."""
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
    return joined([*parts, things(rng, flat_roof(rng), [building], height=STOREY * rng.integers(3, 7))])


def flat_roof(rng: np.random.Generator) -> Cover:
    """What a flat roof is covered with."""
    return Cover(rng.choice([Cover.BITUMEN, Cover.BITUMEN, Cover.GRAVEL, Cover.SHEET]))
