"""Represent footprints, the outlines of buildings, and convert maps to footprints.

Coordinates are float pixels of the tile, x then y, from the top left corner of its top left pixel: the pixel in row r
and column c is the square from (c, r) to (c + 1, r + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import shapely
from jaxtyping import Float64, Int64, Shaped
from shapely import MultiPolygon, Polygon

Polygons: TypeAlias = Sequence[Polygon | MultiPolygon] | Shaped[np.ndarray, "_"]


@dataclass(frozen=True, eq=False)
class Footprints:
    """The proposed buildings of one tile.

    Attributes:
        polygons: shapely Polygons in pixels, in an array of dtype object
        confidences: of each polygon, from 0 to 1
        classes: number of the class of each polygon, from 1; None where there is one class
        looks: number of images that each polygon is made from; None where it is one
        heights: mean height of each polygon in m, NaN where unknown; None where none is predicted
    """

    polygons: Shaped[np.ndarray, "n"]
    confidences: Float64[np.ndarray, "n"]
    classes: Int64[np.ndarray, "n"] | None = None
    looks: Int64[np.ndarray, "n"] | None = None
    heights: Float64[np.ndarray, "n"] | None = None

    def __len__(self) -> int:
        return len(self.polygons)

    def __getitem__(self, chosen: Shaped[np.ndarray, " k"]) -> "Footprints":
        optional = (self.classes, self.looks, self.heights)
        of_chosen = (None if column is None else column[chosen] for column in optional)
        return Footprints(self.polygons[chosen], self.confidences[chosen], *of_chosen)

    @staticmethod
    def concatenated(chunks: Sequence["Footprints"]) -> "Footprints":
        """Return the footprints of several chunks, at least one, of which all have a column or none has it."""

        def column(name: str) -> Any:
            values = [getattr(chunk, name) for chunk in chunks]
            return None if values[0] is None else np.concatenate(values)

        return Footprints(*(column(field.name) for field in fields(Footprints)))


@dataclass(frozen=True, eq=False)
class Labels:
    """The ground truth buildings of one tile.

    Attributes:
        polygons: shapely Polygons in pixels, in an array of dtype object; they may overlap and have holes
        heights: mean height of each building in m, NaN where unknown
        classes: number of the class of each building, from 1; None where there is one class
    """

    polygons: Shaped[np.ndarray, "n"]
    heights: Float64[np.ndarray, "n"]
    classes: Int64[np.ndarray, "n"] | None = None

    def __len__(self) -> int:
        return len(self.polygons)


def rotate_polygons(polygons: Polygons, height: int, width: int) -> Shaped[np.ndarray, "_"]:
    """Rotate polygons by 180° together with their tile of `height` × `width` pixels."""
    return shapely.transform(np.asarray(polygons, dtype=object), lambda xy: (width, height) - xy)
