"""How near footprints lie to nodata, which the sensor did not see."""

import numpy as np
import shapely
from jaxtyping import Bool, Int64, Shaped

from sn6.datasets.layout import PIXEL
from sn6.footprints.polygonize import polygonize

DISTANCES = (0.0, 10.0, 50.0)  # metres
NAMES = ("at nodata", "0-10 m", "10-50 m", "50+ m")


def distance_bin(polygons: Shaped[np.ndarray, "n"], valid: Bool[np.ndarray, "height width"]) -> Int64[np.ndarray, "n"]:
    """The place in `NAMES` of each polygon's distance to the nearest nodata of its own tile.

    Args:
        polygons: in pixels of the tile
        valid: false on nodata
    """
    nodata = shapely.STRtree(polygonize((~valid).astype(np.int32))[0])
    found = np.full(len(polygons), len(DISTANCES))
    for i, distance in reversed(list(enumerate(DISTANCES))):
        found[nodata.query(polygons, predicate="dwithin", distance=distance / PIXEL)[0]] = i
    return found
