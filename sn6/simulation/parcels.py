"""Build street blocks without buildings, and what surrounds buildings: trees, parked cars."""

import numpy as np
import shapely
from shapely import Point, Polygon, box

from sn6.simulation.ground import Cover, Ground, concatenate, make_objects

CAR_HEIGHT = 1.6  # metres


def parcel(rng: np.random.Generator, cover: Cover, width: float, depth: float, trees: int) -> Ground:
    """Build an empty block: its surface, its trees, and the cars and trees along its street."""
    kerb = [box(x, -2.4, x + 4.4, -0.5) for x in np.arange(3.0, width - 6.0, 6.0) if rng.random() < 0.3]
    street_trees = int(rng.choice([0, 0, 3, 8]))
    return concatenate(
        [
            make_objects(rng, cover, [box(0.0, 0.0, width, depth)]),
            make_objects(rng, Cover.CAR, kerb, height=CAR_HEIGHT),
            scattered_trees(rng, trees, (1.0, 1.0, width - 1.0, depth - 1.0)),
            scattered_trees(rng, street_trees, (1.0, 0.0, width - 1.0, 1.0)),
        ]
    )


def scattered_trees(rng: np.random.Generator, n: int, bounds: tuple[float, float, float, float]) -> Ground:
    """Scatter `n` crowns of 3 to 10 m diameter with their centres within `bounds` (west, south, east, north)."""
    radius = rng.uniform(1.5, 5.0, n)
    crowns = shapely.buffer(shapely.points(rng.uniform(bounds[:2], bounds[2:], (n, 2))), radius, quad_segs=3)
    return make_objects(rng, Cover.TREE, list(crowns), height=2.5 * radius + rng.uniform(0.0, 4.0, n))


def parked_cars(rng: np.random.Generator, width: float, y: float, occupied: float) -> Ground:
    """Park cars side by side in a row of bays, of which the fraction `occupied` is in use."""
    bays = [box(x, y, x + 1.9, y + 4.4) for x in np.arange(4.0, width - 6.0, 2.7) if rng.random() < occupied]
    return make_objects(rng, Cover.CAR, bays, height=CAR_HEIGHT)


def park(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a lawn with few or many trees."""
    return parcel(rng, Cover.LAWN, width, depth, trees=int(rng.choice([4, 25, 110])))


def car_park(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a paved block with rows of parked cars."""
    rows = [parked_cars(rng, width, y, 0.4) for y in np.arange(4.0, depth - 6.0, 12.0)]
    return concatenate([parcel(rng, Cover.PAVING, width, depth, trees=6), *rows])


def pond(rng: np.random.Generator, width: float, depth: float) -> Ground:
    """Build a lawn with a pond."""
    circle = Point(0.0, 0.0).buffer(1.0, quad_segs=6)
    rim = np.asarray(circle.exterior.coords) * (0.42 * width, 0.38 * depth) + (width / 2, depth / 2)
    lawn = parcel(rng, Cover.LAWN, width, depth, trees=0)
    trees = scattered_trees(rng, 6, (2.0, 1.0, width - 2.0, 0.1 * depth))
    return concatenate([lawn, trees, make_objects(rng, Cover.WATER, [Polygon(rim)])])
