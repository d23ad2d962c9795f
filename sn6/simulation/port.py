"""Street blocks of a port, in the frame of `sn6.simulation.blocks`: sheds, tanks, quays with ships, rail."""

from itertools import pairwise

import numpy as np
from shapely import LineString, Point, Polygon, box

from sn6.simulation.ground import Cover, Ground, joined, things
from sn6.simulation.parcels import lot

BARGE, VESSEL = (40.0, 7.0, 4.0), (90.0, 13.0, 11.0)  # metres: length, beam, height above the water
CONTAINER = (12.2, 2.4, 2.6)  # metres: forty feet


def warehouses(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Sheds of one wide span each, side by side."""
    parts = [lot(rng, Cover.PAVING, width, depth, trees=1)]
    n = int(rng.integers(1, 4))
    walls = np.linspace(3.0, width - 3.0, n + 1)
    rows = [box(a, 6.0, b - rng.choice([0.0, 5.0]), depth * rng.uniform(0.55, 0.9)) for a, b in pairwise(walls)]
    parts.append(things(rng, Cover(rng.choice([Cover.SHEET, Cover.BITUMEN])), rows, rng.uniform(7.0, 14.0)))
    parts.append(containers(rng, width, 1.5, rows=1))
    return joined(parts)


def tank_farm(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Round tanks on a lattice."""
    parts = [lot(rng, Cover.PAVING, width, depth, trees=0)]
    pitch = rng.uniform(16.0, 30.0)
    xs, ys = (np.arange(pitch / 2, side - pitch / 2 + 1, pitch) for side in (width, depth))
    middles = [(x, y) for x in xs for y in ys]
    tanks = [Point(*at).buffer(0.36 * pitch, quad_segs=8) for at in middles if rng.random() < 0.8]
    return joined([*parts, things(rng, Cover.SHEET, tanks, height=rng.uniform(7.0, 18.0), alike=True)])


def quay(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """A dock with ships along its wall, and containers and a crane on the quay."""
    edge = depth * rng.uniform(0.35, 0.5)
    parts = [lot(rng, Cover.PAVING, width, depth, trees=0)]
    parts.append(things(rng, Cover.WATER, [box(0.0, edge, width, depth)]))
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
    parts.append(things(rng, Cover.METAL, [legs] if rng.random() < 0.6 else [], height=rng.uniform(18.0, 35.0)))
    return joined(parts)


def rail_yard(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Parallel tracks with rows of wagons."""
    tracks = np.arange(6.0, depth - 6.0, 5.0)
    parts = [lot(rng, Cover.LAWN, width, depth, trees=4)]
    parts.append(things(rng, Cover.RAIL, [box(0.0, y - 1.6, width, y + 1.6) for y in tracks]))
    for y in tracks[rng.random(len(tracks)) < 0.3]:
        wagons = np.arange(rng.uniform(0.0, 0.5) * width, width - 15.0, 14.5)
        parts.append(things(rng, Cover.METAL, [box(x, y - 1.4, x + 13.5, y + 1.4) for x in wagons], height=3.5))
    return joined(parts)


def containers(rng: np.random.Generator, width: float, y: float, rows: int) -> Ground:
    """Stacks of one to three containers in rows along the street."""
    long, wide, high = CONTAINER
    stacks = [
        box(x, y + row * (wide + 0.3), x + long, y + row * (wide + 0.3) + wide)
        for row in range(rows)
        for x in np.arange(4.0, width - long - 4.0, long + 0.5)
        if rng.random() < 0.5
    ]
    return things(rng, Cover.METAL, stacks, height=high * rng.integers(1, 4, len(stacks)))


def ship(rng: np.random.Generator, x: float, y: float, kind: tuple[float, float, float]) -> Ground:
    """A hull with its bow in the east, and the bridge at the stern; (x, y) is the lower left corner."""
    long, beam, high = kind
    hull = [(x, y), (x + 0.88 * long, y), (x + long, y + beam / 2), (x + 0.88 * long, y + beam), (x, y + beam)]
    bridge = box(x + 2.0, y + 0.8, x + 0.12 * long, y + beam - 0.8)
    parts = [(Polygon(hull), 0.4 * high), (bridge, high)]
    return joined([things(rng, Cover.METAL, [shape], height) for shape, height in parts])


def ships_at_anchor(rng: np.random.Generator, basin: tuple[float, float, float, float]) -> Ground:
    """A few ships on the open water of a basin (west, south, east, north), where they fit."""
    west, south, east, north = basin
    afloat = []
    for kind in (VESSEL, BARGE, BARGE, BARGE):
        x, y = rng.uniform(0.0, 1.0, 2) * (east - west - kind[0], north - south - kind[1]) + (west, south)
        if east - west > kind[0] and north - south > kind[1] and rng.random() < 0.8:
            afloat.append(ship(rng, x, y, kind))
    return joined(afloat) if afloat else things(rng, Cover.METAL, [])
