"""Describe the objects of the scene as one table of polygons: lawns, water, cars, trees and buildings."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int, Shaped


class Cover(IntEnum):
    """The material that a pixel shows, that of the topmost object."""

    STREET = 0  # where there is no object
    PAVING = 1
    LAWN = 2
    GARDEN = 3
    RAIL = 4
    WATER = 5
    CAR = 6  # the first that rises above the ground
    METAL = 7  # ships, cranes, containers, masts
    TREE = 8
    CORNER = 9  # recesses at the foot of a facade that reflect to where the wave comes from
    FENCE = 10  # fences, hedges and garden walls
    FITTING = 11  # small parts of buildings: dormers, chimneys, porches, downpipes, parapets, plant on roofs
    TILES = 12  # the first roof: clay, on a slope
    BITUMEN = 13
    GRAVEL = 14
    SHEET = 15  # profiled metal


TONES = 4  # random numbers that an object has, see Ground.tone
FIRST_RAISED, FIRST_ROOF = Cover.CAR, Cover.TILES  # all later covers are raised, or roofs, too


@dataclass(frozen=True)
class Ground:
    """A table of objects, one row each.

    Attributes:
        shape: polygons; metres in EPSG:32631 in a scene, metres in the frame of the block before that
        cover: a Cover
        height: metres above the ground; of a pitched roof, of its eaves
        rise: metres from the eaves to the ridge, 0 for a flat roof
        angle: direction of the ridge in radians from east, counterclockwise
        tone: random numbers in -1..1 by which objects of one cover differ: for all bands of the radar, for the optical
            images, for HV and VH against HH and VV, for HH against VV
        surveyed: whether the labels give the height
    """

    shape: Shaped[np.ndarray, " n"]
    cover: Int[np.ndarray, " n"]
    height: Float[np.ndarray, " n"]
    rise: Float[np.ndarray, " n"]
    angle: Float[np.ndarray, " n"]
    tone: Float[np.ndarray, "n 4"]
    surveyed: Bool[np.ndarray, " n"]

    def where(self, rows: Shaped[np.ndarray, " _"]) -> "Ground":
        """Return the selected rows, given as a mask or as indices."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def transformed(self, angle: float, x: float, y: float) -> "Ground":
        """Rotate counterclockwise by `angle` (radians) about the origin, then shift by (x, y)."""
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        columns["shape"] = shapely.transform(self.shape, lambda xy: xy @ rotation + (x, y))
        columns["angle"] = self.angle + angle
        return type(self)(**columns)

    @property
    def is_building(self) -> Bool[np.ndarray, " n"]:
        return self.cover >= FIRST_ROOF

    @property
    def is_raised(self) -> Bool[np.ndarray, " n"]:
        return self.cover >= FIRST_RAISED

    def in_paint_order(self) -> "Ground":
        """Sort by the order of rasterizing: flat objects by cover, then raised ones from low to high."""
        return self.where(np.argsort(np.where(self.is_raised, 100.0 + self.height, self.cover), kind="stable"))


def make_objects(
    rng: np.random.Generator,
    cover: Cover,
    shapes: Sequence[shapely.Polygon] | Shaped[np.ndarray, " n"],
    height: float | Float[np.ndarray, " n"] = 0.0,
    angle: float | Float[np.ndarray, " n"] = 0.0,
    rise: float | Float[np.ndarray, " n"] = 0.0,
    alike: float = 0.0,
) -> Ground:
    """Make a table of objects of one cover; the heights of 4% of them are missing in the labels.

    Args:
        rng: draws the tones and the missing heights
        cover, shapes, height, angle, rise: columns of Ground
        alike: fraction of the tones that the objects share, 0 to 1
    """
    n = len(shapes)
    tone = (1 - alike) * rng.uniform(-1.0, 1.0, (n, TONES)) + alike * rng.uniform(-1.0, 1.0, TONES)
    column = np.empty(n, dtype=object)
    column[:] = shapes
    return Ground(
        shape=column,
        cover=np.full(n, int(cover)),
        height=np.full(n, height, dtype=float),
        rise=np.full(n, rise, dtype=float),
        angle=np.full(n, angle, dtype=float),
        tone=tone,
        surveyed=rng.random(n) > 0.04,
    )


def concatenate(grounds: Sequence[Ground]) -> Ground:
    """Concatenate one or more tables, in their order."""
    return Ground(**{f.name: np.concatenate([getattr(g, f.name) for g in grounds]) for f in fields(Ground)})
