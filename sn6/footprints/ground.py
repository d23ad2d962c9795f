"""Pixels of a tile to metres on the ground, and back to the same pixels."""

from typing import TypeAlias

import numpy as np
import shapely
from jaxtyping import Float64, Shaped

Corner: TypeAlias = tuple[float, float]  # the west and the north edge of a tile in metres

DIGITS = 6  # of a pixel, after the point. Metres, written to 1e-8, come back to a fiftieth of the last one.


def to_ground(polygons: Shaped[np.ndarray, "n"], corner: Corner, pixel: float) -> Shaped[np.ndarray, "n"]:
    """Polygons in pixels of a tile as polygons in metres, rounded to 1e-8 m: east, then north.

    Args:
        polygons: shapely Polygons or MultiPolygons
        corner: of the tile
        pixel: its size in metres
    """
    return shapely.transform(polygons, lambda xy: np.round(xy * (pixel, -pixel) + corner, DIGITS + 2))


def to_pixels(
    polygons: Shaped[np.ndarray, "n"], corners: Float64[np.ndarray, "n 2"], pixel: float
) -> Shaped[np.ndarray, "n"]:
    """The inverse of `to_ground`, each polygon with the corner of its own tile.

    Coordinates are rounded to 1e-6 px, so that an area of just 80 px² comes back as one.
    """
    flat = shapely.force_2d(polygons)
    xy, polygon = shapely.get_coordinates(flat, return_index=True)
    return shapely.set_coordinates(flat, np.round((xy - corners[polygon]) / (pixel, -pixel), DIGITS))
