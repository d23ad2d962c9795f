"""Regularise the footprints of a tile: beside shapely's rectangle around each, which is another answer.

No alternative keeps the walls that buildings share. The result is checked by what it promises instead: areas within 2%,
no overlap, and corners at multiples of 45° in nearly all footprints that change. The times are those of one building.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import shapely

from benchmarks.comparison import Row, medians, require
from benchmarks.oracle import RECIPES, crowded_labels
from benchmarks.street_map import SIZE
from sn6.datasets.spacenet6 import PIXEL
from sn6.footprints.regularization import regularize
from sn6.targets.mask import Mask
from sn6.targets.target import TileLabels

BUILDINGS = (60, 300)
LIMIT = 0.003  # s, of a building
MAX_AREA_CHANGE, MAX_OVERLAP = 0.02, 0.05  # relative, and m² that two buildings overlap more than before
MIN_EXACT = 0.8  # of the footprints that change; the others share corners with one that stays
ANGLE_TOLERANCE = 0.5  # degrees
PEER = "shapely.minimum_rotated_rectangle"


def rows(counts: Sequence[int] = BUILDINGS, size: int = SIZE, repeats: int = 9) -> Iterator[Row]:
    """Yield a row for each number of buildings on a tile of `size` pixels."""
    for count in counts:
        footprints = footprints_of(crowded_labels(count, size))
        inputs = f"one of {len(footprints)} footprints"
        ours = partial(regularize, footprints)
        theirs = partial(shapely.minimum_rotated_rectangle, footprints)
        exact, changed = check_promises(inputs, footprints, ours())
        ious = [iou(footprints, others()).mean() for others in (ours, theirs)]
        agreement = f"no: {exact} of {changed} that change at 45°, IoU {ious[0]:.3f}; rectangles {ious[1]:.3f}"
        seconds = medians({"ours": ours, "theirs": theirs}, repeats)
        each = {name: value / len(footprints) for name, value in seconds.items()}
        yield Row("regularisation", inputs, each["ours"], PEER, each["theirs"], agreement, max_ours=LIMIT)


def footprints_of(labels: TileLabels) -> np.ndarray:
    """Return the footprints from the maps of the ground truth, in m; neighbours share their walls."""
    recipe = RECIPES["edge and contact"]
    maps = {name: target.tile(labels) for name, target in {"mask": Mask(), **recipe.targets}.items()}
    footprints = recipe.polygonizer(maps, labels.valid, PIXEL)
    return shapely.transform(footprints.polygons, lambda xy: xy * PIXEL)


def check_promises(inputs: str, before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Check areas, overlaps and angles of regularised footprints.

    Returns:
        The number of those that change and have all corners at multiples of 45°, and of all that change.

    Raises:
        Mismatch: a promise is not kept
    """
    change = np.abs(shapely.area(after) / shapely.area(before) - 1).max()
    require(change <= MAX_AREA_CHANGE, f"regularisation, {inputs}: an area changes by {change:.1%}")
    more = overlap(after) - overlap(before)
    require(more <= MAX_OVERLAP, f"regularisation, {inputs}: two overlap by {more:.2g} m² more than before")
    changed = after[~shapely.equals(before, after)]
    exact = sum(is_exact(polygon) for polygon in changed)
    require(
        exact >= MIN_EXACT * len(changed) > 0,
        f"regularisation, {inputs}: {exact} of {len(changed)} that change have all corners at multiples of 45°",
    )
    return exact, len(changed)


def is_exact(polygon: shapely.Polygon) -> bool:
    """Return whether the shell turns by a multiple of 45° at each of its corners."""
    steps = np.diff(shapely.get_coordinates(polygon.exterior) @ np.array([1, 1j]))
    angles = np.rad2deg(np.angle(np.roll(steps, -1) / steps))
    return bool((np.abs((angles + 22.5) % 45 - 22.5) <= ANGLE_TOLERANCE).all())


def overlap(polygons: np.ndarray) -> float:
    """Return the largest area that two polygons share."""
    one, other = shapely.STRtree(polygons).query(polygons)
    pairs = one < other
    return float(shapely.area(shapely.intersection(polygons[one[pairs]], polygons[other[pairs]])).max(initial=0))


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of the polygons of each pair."""
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))
