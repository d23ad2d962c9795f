"""Street blocks without buildings, and what stands around buildings: trees, parked cars."""

import numpy as np
import shapely
from shapely import Point, Polygon, box

from sn6.simulation.ground import Cover, Ground, joined, things

CAR = 1.6  # metres high


def lot(rng: np.random.Generator, cover: Cover, width: float, depth: float, trees: int) -> Ground:
    """The bare block: its ground, its trees, and cars and trees along the street before it."""
    kerb = [box(x, -2.4, x + 4.4, -0.5) for x in np.arange(3.0, width - 6.0, 6.0) if rng.random() < 0.3]
    avenue = int(rng.choice([0, 0, 3, 8]))
    return joined(
        [
            things(rng, cover, [box(0.0, 0.0, width, depth)]),
            things(rng, Cover.CAR, kerb, height=CAR),
            scattered_trees(rng, trees, (1.0, 1.0, width - 1.0, depth - 1.0)),
            scattered_trees(rng, avenue, (1.0, 0.0, width - 1.0, 1.0)),
        ]
    )


def scattered_trees(rng: np.random.Generator, n: int, bounds: tuple[float, float, float, float]) -> Ground:
    """`n` crowns of 3 to 10 m across, with their centres within `bounds` (west, south, east, north)."""
    radius = rng.uniform(1.5, 5.0, n)
    crowns = shapely.buffer(shapely.points(rng.uniform(bounds[:2], bounds[2:], (n, 2))), radius, quad_segs=3)
    return things(rng, Cover.TREE, list(crowns), height=2.5 * radius + rng.uniform(0.0, 4.0, n))


def parked(rng: np.random.Generator, width: float, y: float, share: float) -> Ground:
    """A row of cars side by side."""
    bays = [box(x, y, x + 1.9, y + 4.4) for x in np.arange(4.0, width - 6.0, 2.7) if rng.random() < share]
    return things(rng, Cover.CAR, bays, height=CAR)


def park(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Lawn with trees, a wood where they stand close."""
    return lot(rng, Cover.LAWN, width, depth, trees=int(rng.choice([4, 25, 110])))


def car_park(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Rows of parked cars."""
    rows = [parked(rng, width, y, 0.4) for y in np.arange(4.0, depth - 6.0, 12.0)]
    return joined([lot(rng, Cover.PAVING, width, depth, trees=6), *rows])


def pond(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Water in a lawn."""
    water = Point(0.0, 0.0).buffer(1.0, quad_segs=6)
    rim = np.asarray(water.exterior.coords) * (0.42 * width, 0.38 * depth) + (width / 2, depth / 2)
    lawn = lot(rng, Cover.LAWN, width, depth, trees=0)
    row = scattered_trees(rng, 6, (2.0, 1.0, width - 2.0, 0.1 * depth))
    return joined([lawn, row, things(rng, Cover.WATER, [Polygon(rim)])])
