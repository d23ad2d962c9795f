"""Measure the distance of footprints to nodata, where the sensor observed nothing."""

import numpy as np
import shapely
from jaxtyping import Bool, Int64, Shaped

from sn6.footprints.polygonize import polygonize

DISTANCES = (0.0, 10.0, 50.0)  # m
NAMES = ("at nodata", "0-10 m", "10-50 m", "50+ m")


def distance_bin(
    polygons: Shaped[np.ndarray, "n"], valid: Bool[np.ndarray, "height width"], pixel_size: float
) -> Int64[np.ndarray, "n"]:
    """Return the index into `NAMES` for the distance of each polygon to the nearest nodata of its own tile.

    Args:
        polygons: in pixels of the tile
        valid: false on nodata
        pixel_size: m
    """
    nodata = shapely.STRtree(polygonize((~valid).astype(np.int32))[0])
    bin_of_polygon = np.full(len(polygons), len(DISTANCES))
    for i, distance in reversed(list(enumerate(DISTANCES))):
        bin_of_polygon[nodata.query(polygons, predicate="dwithin", distance=distance / pixel_size)[0]] = i
    return bin_of_polygon
