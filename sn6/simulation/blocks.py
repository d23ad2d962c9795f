"""Build street blocks of several types, each in the frame of the block: x along the street, y away from it.

A BlockBuilder is a function of (random numbers, width, depth in metres) that returns the Ground of a block within
0..width, 0..depth; cars and trees are also just outside, on the street. Sizes are those usual in Dutch towns: terraced
houses 5.4 to 7.6 m wide and 8.5 to 10.5 m deep, of two storeys under a roof; walk-up flats of three to four storeys;
slabs of four to eight, towers up to 90 m.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from shapely import box

from sn6.simulation.fittings import roof_plant, row_details, row_of
from sn6.simulation.ground import Cover, Ground, concatenate, make_objects
from sn6.simulation.parcels import parcel, parked_cars, scattered_trees

STOREY = 2.9  # metres
MAX_HEIGHT = 90.0  # metres, of all buildings

BlockBuilder = Callable[[np.random.Generator, float, float], Ground]


def terraces(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build one or two rows of houses with party walls, and gardens and sheds behind them."""
    parts = [parcel(rng, Cover.GARDEN, width, depth, trees=8)]
    house_width, house_depth = rng.uniform(5.4, 7.6), rng.uniform(8.5, 10.5)
    eaves, pitched = STOREY * rng.choice([2, 2, 3]) - 0.3, rng.random() < 0.8
    n = min(int((width - 6) // house_width), int(rng.integers(4, 9)))
    walls = (width - n * house_width) / 2 + house_width * np.arange(n + 1)
    roof, rise = (Cover.TILES, rng.uniform(2.8, 4.0)) if pitched else (flat_roof(rng), 0.0)
    setbacks = [0.0, 1.2, 2.4] if rng.random() < 0.5 else [0.0]  # metres
    for front in (4.0, depth - 4.0 - house_depth)[: int(rng.choice([1, 2, 2]))]:
        steps = rng.choice(setbacks, n)
        row = [box(a, front + s, b, front + s + house_depth) for (a, b), s in zip(pairwise(walls), steps, strict=True)]
        heights = eaves + rng.choice([0.0, 0.3]) * rng.standard_normal(n) + rng.choice([0.0, 0.0, 0.0, 0.9, STOREY], n)
        parts.append(make_objects(rng, roof, row, height=heights, rise=rise, alike=0.3))
        plan = row_of(row, heights, np.full(n, rise), np.zeros(n, bool))
        parts.append(row_details(rng, plan, front == 4.0, garden=rng.uniform(6.0, 12.0)))
        back = front + house_depth + 5.0 if front == 4.0 else front - 8.5
        gardens = walls[:-1][rng.random(n) < (0.12 if depth > 46.0 else 0.0)]
        sheds = [box(a + 0.3, back, a + 3.3, back + rng.uniform(2.2, 5.0)) for a in gardens]
        parts.append(make_objects(rng, Cover.BITUMEN, sheds, height=2.5))
    return concatenate(parts)


def perimeter(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a closed block of town houses with party walls, each of its own width and height, around yards."""
    parts = [parcel(rng, Cover.GARDEN, width, depth, trees=8)]
    house_depth, storeys, pitched = rng.uniform(10.5, 13.5), int(rng.choice([2, 3, 3, 4])), rng.uniform(0.0, 0.8)
    inner = 2.0 + house_depth
    for south in (2.0, depth - inner):
        parts.append(town_houses(rng, (2.0, width - 2.0, south, house_depth), south == 2.0, storeys, pitched))
    for west in (2.0, width - inner):
        if rng.random() < 0.7:
            place = (inner + 2.0, depth - inner, -west - house_depth, house_depth)
            row = town_houses(rng, place, west > 2.0, storeys, pitched)
            parts.append(row.transformed(np.pi / 2, 0.0, 0.0))
    yard = box(inner + 4.0, inner + 5.0, width - inner - 4.0, depth - inner - 5.0)
    if yard.area > 250.0 and rng.random() < 0.8:
        parts.append(workshops(rng, yard.bounds))
    return concatenate(parts)


def town_houses(
    rng: np.random.Generator,
    place: tuple[float, float, float, float],
    faces_south: bool,
    storeys: int,
    pitched: float,
) -> Ground:
    """Build a row of town houses along x, one by one over the years: their heights, roofs and fronts differ.

    Args:
        rng: draws the houses
        place: west, east and south of the row, depth of the houses, metres
        faces_south: whether the street is in the south
        storeys: usual number
        pitched: fraction of the roofs that are pitched
    """
    west, east, south, depth = place
    walls = party_walls(rng, west, east)
    n = len(walls) - 1
    heights = STOREY * np.maximum(storeys + rng.choice([-1, 0, 0, 1], n), 2) + rng.uniform(-0.8, 0.8, n)
    fronts, backs = rng.choice([0.0, 0.0, 0.0, 0.8], n), rng.choice([-1.5, 0.0, 0.0, 1.5], n)
    row = [
        box(a, south + front, b, south + depth + back)
        for (a, b), front, back in zip(pairwise(walls), fronts, backs, strict=True)
    ]
    rise = np.where(rng.random(n) < pitched, rng.uniform(2.0, 4.0, n), 0.0)
    across = rng.random(n) < 0.4
    covers = [Cover.TILES if pitch > 0 else flat_roof(rng) for pitch in rise]
    houses = [
        make_objects(rng, cover, [house], height, np.pi / 2 * turned, pitch)
        for cover, house, height, turned, pitch in zip(covers, row, heights, across, rise, strict=True)
    ]
    details = row_details(rng, row_of(row, heights, rise, across), faces_south, garden=float(rng.choice([0.0, 5.0])))
    return concatenate([*houses, details])


def workshops(rng: np.random.Generator, bounds: tuple[float, float, float, float]) -> Ground:
    """Build low buildings that fill a yard (west, south, east, north), some of them wall to wall."""
    west, south, east, north = bounds
    walls = np.arange(west, east - 9.0, rng.uniform(10.0, 16.0))
    gaps = rng.choice([0.0, 2.5], len(walls))
    far = north - rng.uniform(0.0, 0.3, len(walls)) * (north - south)
    shapes = [box(a + gap, south, b, y) for (a, b), gap, y in zip(pairwise([*walls, east]), gaps, far, strict=True)]
    kept = [shape for shape in shapes if rng.random() < 0.8]
    return make_objects(rng, flat_roof(rng), kept, height=rng.uniform(2.8, 5.0, len(kept)))


def party_walls(rng: np.random.Generator, start: float, end: float) -> list[float]:
    """Divide `start` to `end` into houses of 6 to 14 m, the last one of at most 21 m, and return their walls."""
    walls = [start]
    while end - walls[-1] > 21.0:
        walls.append(walls[-1] + rng.uniform(6.0, 14.0))
    return [*walls, end]


def detached(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build two rows of detached and semi-detached houses, some of them with a wing or a garage."""
    parts = [parcel(rng, Cover.GARDEN, width, depth, trees=18)]
    n = int(width // rng.uniform(17.0, 24.0))
    for x, y in ((x, y) for x in np.arange(n) * width / n for y in (0.0, depth / 2)):
        if rng.random() < 0.12:
            continue
        length, breadth = rng.uniform(8.5, 12.0), rng.uniform(7.5, 10.0)
        west, south = x + rng.uniform(1.5, 3.5), y + rng.uniform(5.0, 8.0)
        house = box(west, south, west + length, south + breadth)
        height, rise = rng.uniform(3.0, 6.0), rng.uniform(2.5, 4.5)
        angle = float(rng.choice([0.0, np.pi / 2]))
        if rng.random() < 0.3:
            house = house.union(box(west, south - 3.0, west + 0.45 * length, south + 1.0))
        if rng.random() < 0.35:  # semi-detached, under one roof
            halves = [box(a, south, a + length / 2, south + breadth) for a in (west, west + length / 2)]
            parts.append(make_objects(rng, Cover.TILES, halves, height, rise=rise, alike=0.7))
            pair = row_of(halves, np.full(2, height), np.full(2, rise), np.zeros(2, bool))
            parts.append(row_details(rng, pair, True, garden=rng.uniform(4.0, 8.0)))
        else:
            parts.append(make_objects(rng, Cover.TILES, [house], height, angle, rise))
        if rng.random() < 0.2:
            garage = box(west + length + 0.8, south, west + length + 3.8, south + 5.5)
            parts.append(make_objects(rng, Cover.BITUMEN, [garage], height=2.6))
    return concatenate(parts)


def slabs(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build one or two long blocks of flats on a lawn."""
    parts = [parcel(rng, Cover.LAWN, width, depth, trees=14)]
    height, thickness = STOREY * rng.choice([4, 4, 4, 5, 8, 8, 13]), rng.uniform(10.5, 13.0)
    length = width * rng.uniform(0.55, 0.9)
    west = rng.uniform(2.0, width - length - 2.0)
    fronts = (5.0, depth - 5.0 - thickness) if depth > 54 and rng.random() < 0.6 else (rng.uniform(5.0, depth - 20.0),)
    rows = [box(west, y, west + length, y + thickness) for y in fronts]
    plant = [roof_plant(rng, row.bounds, height) for row in rows]
    return concatenate([*parts, make_objects(rng, flat_roof(rng), rows, height=height, alike=0.9), *plant])


def towers(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build one or two high-rise buildings."""
    parts = [parcel(rng, Cover.PAVING, width, depth, trees=10)]
    for x in (0.0, width / 2)[: int(rng.integers(1, 3))]:
        side = rng.uniform(16.0, min(26.0, 0.42 * width))
        west, south = x + rng.uniform(2.0, max(width / 2 - side - 2.0, 2.5)), rng.uniform(4.0, depth - side - 4.0)
        height = float(np.clip(40.0 * np.exp(0.35 * rng.standard_normal()), 25.0, MAX_HEIGHT))
        parts.append(make_objects(rng, flat_roof(rng), [box(west, south, west + side, south + side)], height=height))
    return concatenate(parts)


def hall(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a shop, school or factory: one wide building with a flat roof, sometimes L-shaped, and its yard."""
    parts = [parcel(rng, Cover.PAVING if rng.random() < 0.5 else Cover.LAWN, width, depth, trees=6)]
    length, breadth = width * rng.uniform(0.45, 0.8), depth * rng.uniform(0.4, 0.75)
    west, south = rng.uniform(3.0, width - length - 3.0), rng.uniform(3.0, depth - breadth - 3.0)
    building = box(west, south, west + length, south + breadth)
    if rng.random() < 0.5:
        corner = box(west + 0.6 * length, south + 0.45 * breadth, west + length + 1.0, south + breadth + 1.0)
        building = building.difference(corner)
    if south > 6.5:
        parts.append(parked_cars(rng, width, 1.0, 0.35))
    height = rng.uniform(4.0, 11.0)
    plant = roof_plant(rng, building.buffer(-0.5).bounds, height) if building.area > 0.9 * length * breadth else None
    parts.append(make_objects(rng, flat_roof(rng), [building], height=height))
    return concatenate(parts if plant is None else [*parts, plant])


def courtyard(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a block of flats around a courtyard: closed, U-shaped or L-shaped."""
    parts = [parcel(rng, Cover.PAVING, width, depth, trees=3)]
    length, thickness = width * rng.uniform(0.5, 0.85), rng.uniform(10.0, 13.0)
    west = rng.uniform(3.0, width - length - 3.0)
    outer = box(west, 4.0, west + length, depth - 4.0)
    court = outer.buffer(-thickness, join_style="mitre")
    parts.append(make_objects(rng, Cover.LAWN, [court]))
    parts.append(scattered_trees(rng, 5, court.bounds))
    opening = rng.random()
    if opening < 0.25:  # a U
        court = court.union(box(west + thickness, 0.0, west + length - thickness, depth / 2))
    elif opening < 0.45:  # an L
        court = court.union(box(west + thickness, 0.0, width, depth - 4.0 - thickness))
    building = outer.difference(court)
    return concatenate([*parts, make_objects(rng, flat_roof(rng), [building], height=STOREY * rng.integers(3, 7))])


def flat_roof(rng: np.random.Generator) -> Cover:
    """Draw the material of a flat roof."""
    return Cover(rng.choice([Cover.BITUMEN, Cover.BITUMEN, Cover.GRAVEL, Cover.SHEET]))
