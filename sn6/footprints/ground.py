"""Convert between pixels of a tile and metres on the ground, exactly in both directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import shapely
from jaxtyping import Float64, Shaped

Corner: TypeAlias = tuple[float, float]  # west and north edge of a tile in metres

DIGITS = 6  # decimals of a pixel; metres, written to 1e-8, come back to a fiftieth of the last one


@dataclass(frozen=True, eq=False)
class TileGrid:
    """Where the tiles of a data set are on the ground.

    Attributes:
        corners: image id → corner of the tile
        crs: of the corners, as "EPSG:<code>"
        pixel_size: of the tiles in m
    """

    corners: Mapping[str, Corner]
    crs: str
    pixel_size: float


def to_ground(polygons: Shaped[np.ndarray, "n"], corner: Corner, pixel_size: float) -> Shaped[np.ndarray, "n"]:
    """Convert polygons in pixels of a tile to metres (easting, northing), rounded to 1e-8 m.

    Args:
        polygons: shapely Polygons or MultiPolygons
        corner: of the tile
        pixel_size: m
    """
    return shapely.transform(polygons, lambda xy: np.round(xy * (pixel_size, -pixel_size) + corner, DIGITS + 2))


def to_pixels(
    polygons: Shaped[np.ndarray, "n"], corners: Float64[np.ndarray, "n 2"], pixel_size: float
) -> Shaped[np.ndarray, "n"]:
    """Convert polygons in metres to pixels, each with the corner of its own tile: the inverse of `to_ground`.

    Coordinates are rounded to 1e-6 px, so that an area of exactly 80 px² stays one.
    """
    flat = shapely.force_2d(polygons)
    xy, polygon = shapely.get_coordinates(flat, return_index=True)
    return shapely.set_coordinates(flat, np.round((xy - corners[polygon]) / (pixel_size, -pixel_size), DIGITS))
