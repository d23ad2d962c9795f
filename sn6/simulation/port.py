"""Build street blocks of a port, in the frame of `sn6.simulation.blocks`: warehouses, tanks, quays, ships, rail."""

from itertools import pairwise

import numpy as np
from shapely import LineString, Point, Polygon, box

from sn6.simulation.fittings import roof_plant
from sn6.simulation.ground import Cover, Ground, concatenate, make_objects
from sn6.simulation.parcels import parcel

BARGE, VESSEL = (40.0, 7.0, 4.0), (90.0, 13.0, 11.0)  # metres: length, beam, height above the water
CONTAINER = (12.2, 2.4, 2.6)  # metres: forty feet


def warehouses(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build one to three warehouses side by side."""
    parts = [parcel(rng, Cover.PAVING, width, depth, trees=1)]
    n = int(rng.integers(1, 4))
    walls = np.linspace(3.0, width - 3.0, n + 1)
    rows = [box(a, 6.0, b - rng.choice([0.0, 5.0]), depth * rng.uniform(0.55, 0.9)) for a, b in pairwise(walls)]
    height = rng.uniform(7.0, 14.0)
    parts.append(make_objects(rng, Cover(rng.choice([Cover.SHEET, Cover.BITUMEN])), rows, height))
    parts += [roof_plant(rng, row.bounds, height) for row in rows]
    parts.append(containers(rng, width, 1.5, rows=1))
    return concatenate(parts)


def tank_farm(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build round tanks on a square grid."""
    parts = [parcel(rng, Cover.PAVING, width, depth, trees=0)]
    pitch = rng.uniform(16.0, 30.0)
    xs, ys = (np.arange(pitch / 2, side - pitch / 2 + 1, pitch) for side in (width, depth))
    centres = [(x, y) for x in xs for y in ys]
    tanks = [Point(*at).buffer(0.36 * pitch, quad_segs=8) for at in centres if rng.random() < 0.8]
    return concatenate([*parts, make_objects(rng, Cover.SHEET, tanks, height=rng.uniform(7.0, 18.0), alike=0.9)])


def quay(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a dock with moored ships, and containers and a crane on the quay."""
    edge = depth * rng.uniform(0.35, 0.5)
    parts = [parcel(rng, Cover.PAVING, width, depth, trees=0)]
    parts.append(make_objects(rng, Cover.WATER, [box(0.0, edge, width, depth)]))
    parts.append(containers(rng, width, 3.0, rows=int(rng.integers(1, 5))))
    x = rng.uniform(3.0, 12.0)
    while rng.random() < 0.8:
        kind = VESSEL if depth - edge > 20.0 and rng.random() < 0.3 else BARGE
        if x + kind[0] > width:
            break
        parts.append(ship(rng, x, edge + 1.5, kind))
        x += kind[0] + rng.uniform(3.0, 15.0)
    crane = rng.uniform(10.0, width - 10.0)
    legs = LineString([(crane, edge - 8.0), (crane, min(edge + 16.0, depth))]).buffer(0.8, cap_style="flat")
    parts.append(make_objects(rng, Cover.METAL, [legs] if rng.random() < 0.6 else [], height=rng.uniform(18.0, 35.0)))
    return concatenate(parts)


def rail_yard(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build parallel tracks with rows of wagons."""
    tracks = np.arange(6.0, depth - 6.0, 5.0)
    parts = [parcel(rng, Cover.LAWN, width, depth, trees=4)]
    parts.append(make_objects(rng, Cover.RAIL, [box(0.0, y - 1.6, width, y + 1.6) for y in tracks]))
    for y in tracks[rng.random(len(tracks)) < 0.3]:
        wagons = np.arange(rng.uniform(0.0, 0.5) * width, width - 15.0, 14.5)
        parts.append(make_objects(rng, Cover.METAL, [box(x, y - 1.4, x + 13.5, y + 1.4) for x in wagons], height=3.5))
    return concatenate(parts)


def containers(rng: np.random.Generator, width: float, y: float, rows: int) -> Ground:
    """Stack one to three containers in each bay of rows along the street."""
    length, breadth, height = CONTAINER
    stacks = [
        box(x, y + row * (breadth + 0.3), x + length, y + row * (breadth + 0.3) + breadth)
        for row in range(rows)
        for x in np.arange(4.0, width - length - 4.0, length + 0.5)
        if rng.random() < 0.5
    ]
    return make_objects(rng, Cover.METAL, stacks, height=height * rng.integers(1, 4, len(stacks)))


def ship(rng: np.random.Generator, x: float, y: float, kind: tuple[float, float, float]) -> Ground:
    """Build a hull with its bow in the east and the bridge at the stern.

    Args:
        rng: draws the tones
        x, y: the lower left corner
        kind: length, beam and height in metres
    """
    length, beam, height = kind
    hull = [(x, y), (x + 0.88 * length, y), (x + length, y + beam / 2), (x + 0.88 * length, y + beam), (x, y + beam)]
    bridge = box(x + 2.0, y + 0.8, x + 0.12 * length, y + beam - 0.8)
    parts = [(Polygon(hull), 0.4 * height), (bridge, height)]
    return concatenate([make_objects(rng, Cover.METAL, [shape], top) for shape, top in parts])


def ships_at_anchor(rng: np.random.Generator, basin: tuple[float, float, float, float]) -> Ground:
    """Place a few ships on the open water of a basin (west, south, east, north) where they fit."""
    west, south, east, north = basin
    placed = []
    for kind in (VESSEL, BARGE, BARGE, BARGE):
        x, y = rng.uniform(0.0, 1.0, 2) * (east - west - kind[0], north - south - kind[1]) + (west, south)
        if east - west > kind[0] and north - south > kind[1] and rng.random() < 0.8:
            placed.append(ship(rng, x, y, kind))
    return concatenate(placed) if placed else make_objects(rng, Cover.METAL, [])
