"""What stands on the ground, as polygons: lawns, water, cars, trees and buildings in one table."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int, Shaped


class Cover(IntEnum):
    """What a pixel shows: the material of what is on top."""

    STREET = 0  # what nothing else covers
    PAVING = 1
    LAWN = 2
    GARDEN = 3
    RAIL = 4
    WATER = 5
    CAR = 6  # the first that stands on the ground
    METAL = 7  # ships, cranes, containers, masts
    TREE = 8
    TILES = 9  # the first roof: clay, on a slope
    BITUMEN = 10
    GRAVEL = 11
    SHEET = 12  # profiled metal


STANDING, ROOFS = Cover.CAR, Cover.TILES  # the first of each, the rest of the covers after it


@dataclass(frozen=True)
class Ground:
    """A table of things, one row a thing.

    Attributes:
        shape: polygons; metres in EPSG:32631 once placed, before that in the frame of their block
        cover: a Cover
        height: metres above the ground; of a pitched roof, of its eaves
        rise: metres of the ridge over the eaves, 0 where the roof is flat
        angle: direction of the ridge in radians from east, counterclockwise
        tone: two random numbers in -1..1 that make this thing unlike the next of its kind, the first for the
            radar, the second for the optical images
        surveyed: whether the labels tell the height
    """

    shape: Shaped[np.ndarray, " n"]
    cover: Int[np.ndarray, " n"]
    height: Float[np.ndarray, " n"]
    rise: Float[np.ndarray, " n"]
    angle: Float[np.ndarray, " n"]
    tone: Float[np.ndarray, "n 2"]
    surveyed: Bool[np.ndarray, " n"]

    def where(self, chosen: Shaped[np.ndarray, " _"]) -> "Ground":
        """The rows that `chosen` names, as a mask or as indices."""
        return type(self)(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def placed(self, angle: float, x: float, y: float) -> "Ground":
        """Turned counterclockwise by `angle` about the origin, then moved by (x, y)."""
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        columns["shape"] = shapely.transform(self.shape, lambda xy: xy @ turn + (x, y))
        columns["angle"] = self.angle + angle
        return type(self)(**columns)

    @property
    def is_building(self) -> Bool[np.ndarray, " n"]:
        return self.cover >= ROOFS

    @property
    def is_standing(self) -> Bool[np.ndarray, " n"]:
        return self.cover >= STANDING

    def in_order(self) -> "Ground":
        """As it is painted: what lies on the ground by its cover, then what stands there from low to high."""
        return self.where(np.argsort(np.where(self.is_standing, 100.0 + self.height, self.cover), kind="stable"))


def things(
    rng: np.random.Generator,
    cover: Cover,
    shapes: Sequence[shapely.Polygon],
    height: float | Float[np.ndarray, " n"] = 0.0,
    angle: float = 0.0,
    rise: float = 0.0,
    alike: bool = False,
) -> Ground:
    """Things of one kind, of one tone where they are `alike`; 4 in 100 have no height in the labels."""
    n = len(shapes)
    tone = rng.uniform(-1.0, 1.0, (n, 2))
    if alike:
        tone = 0.1 * tone + 0.9 * rng.uniform(-1.0, 1.0, 2)
    column = np.empty(n, dtype=object)
    column[:] = shapes
    return Ground(
        shape=column,
        cover=np.full(n, int(cover)),
        height=np.full(n, height, dtype=float),
        rise=np.full(n, rise),
        angle=np.full(n, angle),
        tone=tone,
        surveyed=rng.random(n) > 0.04,
    )


def joined(grounds: Sequence[Ground]) -> Ground:
    """One table of several (at least one), in their order."""
    return Ground(**{f.name: np.concatenate([getattr(g, f.name) for g in grounds]) for f in fields(Ground)})
