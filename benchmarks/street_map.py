"""Generate tiles for the benchmarks: buildings, and proposals of them."""

import numpy as np
import shapely
from shapely import affinity

from sn6.footprints import Footprints

SIZE = 900  # pixels


def street_map(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw rectangles, L-shapes and buildings with courtyards at any angle, one per grid cell; some under 80 px²."""
    side = int(np.ceil(np.sqrt(count)))
    centres = (np.stack(np.divmod(np.arange(count), side), axis=1) + 0.5) * SIZE / side
    buildings = []
    for centre in centres + rng.uniform(-12, 12, centres.shape):
        w, h = rng.uniform(4, 32, 2)
        shell = [(-w, -h), (w, -h), (w, h), (-w, h)]
        if rng.random() < 0.3:
            shell = [(-w, -h), (w, -h), (w, 0), (0, 0), (0, h), (-w, h)]
        holes = [[(-w / 2, -h / 2), (-w / 4, -h / 2), (-w / 4, -h / 4)]] if rng.random() < 0.2 else []
        rotated = affinity.rotate(shapely.Polygon(shell, holes), rng.uniform(0, 90), origin=(0, 0))
        buildings.append(affinity.translate(rotated, *centre))
    return np.array(buildings, dtype=object)


def terraces(rng: np.random.Generator, count: int, size: int, max_side: float) -> np.ndarray:
    """Draw rows of up to seven buildings at any angle and position, with party walls or 3 m apart.

    Args:
        rng: random numbers
        count: number of buildings
        size: of the tile in pixels
        max_side: largest side of a building in pixels; the smallest is 8
    """
    buildings: list[shapely.Polygon] = []
    while len(buildings) < count:
        number = min(int(rng.integers(1, 8)), count - len(buildings))
        (width, depth), gap = rng.uniform(8, max_side, 2), rng.choice([0, 0, 6])
        wests = (np.arange(number) - number / 2) * (width + gap)
        row = shapely.MultiPolygon([shapely.box(west, 0, west + width, depth) for west in wests])
        rotated = affinity.rotate(row, rng.uniform(0, 180), origin=(0, 0))
        buildings += affinity.translate(rotated, *rng.uniform(0, size, 2)).geoms
    return np.array(buildings, dtype=object)


def shifted(rng: np.random.Generator, truth: np.ndarray) -> Footprints:
    """Shift each building by some pixels to a proposal; confidences have two digits, so that there are ties."""
    moved = [affinity.translate(polygon, *rng.normal(0, 5, 2)) for polygon in truth]
    return Footprints(np.array(moved, dtype=object), rng.integers(0, 100, len(moved)) / 100)
