"""Represent footprints, the outlines of buildings, and convert maps to footprints.

Coordinates are float pixels of the tile, x then y, from the top left corner of its top left pixel: the pixel in row r
and column c is the square from (c, r) to (c + 1, r + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import shapely
from jaxtyping import Float64, Shaped
from shapely import MultiPolygon, Polygon

from sn6.errors import UserError

Polygons: TypeAlias = Sequence[Polygon | MultiPolygon] | Shaped[np.ndarray, "_"]


@dataclass(frozen=True, eq=False)
class Footprints:
    """The proposed buildings of one tile.

    Attributes:
        polygons: shapely Polygons in pixels, in an array of dtype object
        confidences: of each polygon, from 0 to 1
    """

    polygons: Shaped[np.ndarray, "n"]
    confidences: Float64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.polygons)


@dataclass(frozen=True, eq=False)
class Labels:
    """The ground truth buildings of one tile.

    Attributes:
        polygons: shapely Polygons in pixels, in an array of dtype object; they may overlap and have holes
        heights: mean height of each building in m, NaN where unknown
    """

    polygons: Shaped[np.ndarray, "n"]
    heights: Float64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.polygons)


@dataclass(frozen=True)
class PolygonOptions:
    """How a map of building probabilities becomes footprints.

    Attributes:
        threshold: probability between 0 and 1, both excluded; a pixel above it is building
        min_area: minimum area of a footprint in m²; a smaller region is dropped
        simplify: maximum distance in m between the simplified outline and the pixel edges; 0 keeps the pixel edges

    Raises:
        UserError: a value out of range
    """

    threshold: float = 0.5
    min_area: float = 20.0
    simplify: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(
                f"invalid threshold={self.threshold}: must be a probability greater than 0 and less than 1",
                kind="invalid_value",
                key="threshold",
                value=self.threshold,
            )
        for key, value in (("min_area", self.min_area), ("simplify", self.simplify)):
            if not value >= 0:
                raise UserError(
                    f"invalid {key}={value}: must be at least 0", kind="invalid_value", key=key, value=value
                )


def describe(options: PolygonOptions) -> str:
    """Return an operating point in words, for titles: `probability > 0.4, at least 20 m²`."""
    return f"probability > {options.threshold:g}, at least {options.min_area:g} m²"


def rotate_polygons(polygons: Polygons, height: int, width: int) -> Shaped[np.ndarray, "_"]:
    """Rotate polygons by 180° together with their tile of `height` × `width` pixels."""
    return shapely.transform(np.asarray(polygons, dtype=object), lambda xy: (width, height) - xy)
