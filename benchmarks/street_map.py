"""Made-up tiles that the benchmarks measure on: buildings, and proposals of them."""

import numpy as np
import shapely
from shapely import affinity

from sn6.footprints import Footprints

SIZE = 900  # pixels


def street_map(rng: np.random.Generator, count: int) -> np.ndarray:
    """Blocks, L-shapes and courtyard houses at any angle, each in a cell of its own; some under 80 px²."""
    side = int(np.ceil(np.sqrt(count)))
    middles = (np.stack(np.divmod(np.arange(count), side), axis=1) + 0.5) * SIZE / side
    houses = []
    for middle in middles + rng.uniform(-12, 12, middles.shape):
        w, h = rng.uniform(4, 32, 2)
        shell = [(-w, -h), (w, -h), (w, h), (-w, h)]
        if rng.random() < 0.3:
            shell = [(-w, -h), (w, -h), (w, 0), (0, 0), (0, h), (-w, h)]
        holes = [[(-w / 2, -h / 2), (-w / 4, -h / 2), (-w / 4, -h / 4)]] if rng.random() < 0.2 else []
        turned = affinity.rotate(shapely.Polygon(shell, holes), rng.uniform(0, 90), origin=(0, 0))
        houses.append(affinity.translate(turned, *middle))
    return np.array(houses, dtype=object)


def terraces(rng: np.random.Generator, count: int, size: int, largest: float) -> np.ndarray:
    """Buildings in rows of up to seven at any angle, with party walls or 3 m apart, the rows anywhere on the tile.

    Args:
        rng: draws them
        count: buildings
        size: of the tile in pixels
        largest: side of a building in pixels; the least is 8
    """
    houses: list[shapely.Polygon] = []
    while len(houses) < count:
        number = min(int(rng.integers(1, 8)), count - len(houses))
        (width, depth), gap = rng.uniform(8, largest, 2), rng.choice([0, 0, 6])
        wests = (np.arange(number) - number / 2) * (width + gap)
        row = shapely.MultiPolygon([shapely.box(west, 0, west + width, depth) for west in wests])
        turned = affinity.rotate(row, rng.uniform(0, 180), origin=(0, 0))
        houses += affinity.translate(turned, *rng.uniform(0, size, 2)).geoms
    return np.array(houses, dtype=object)


def shifted(rng: np.random.Generator, truth: np.ndarray) -> Footprints:
    """A proposal for each building, off by some pixels; confidences of two digits, so that there are ties."""
    moved = [affinity.translate(polygon, *rng.normal(0, 5, 2)) for polygon in truth]
    return Footprints(np.array(moved, dtype=object), rng.integers(0, 100, len(moved)) / 100)
