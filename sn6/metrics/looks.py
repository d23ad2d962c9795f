"""Count the looks at polygons: the tiles of a fused prediction that see the same ground."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Int64, Shaped

from sn6.footprints.ground import Corner, to_ground
from sn6.metrics.breakdown import bins

EDGES = (1, 2, 3, 5, 9)  # looks
NAMES = ("1", "2", "3-4", "5-8", "9+")


@dataclass(frozen=True, eq=False)
class Looks:
    """Where the tiles of a prediction are, nodata included.

    Attributes:
        tiles: index of their rectangles on the ground
    """

    tiles: shapely.STRtree

    def bins(self, polygons: Shaped[np.ndarray, "n"], corner: Corner, pixel_size: float) -> Int64[np.ndarray, "n"]:
        """Return the index into `NAMES` for the number of tiles that see a point inside each polygon, −1 for none.

        Args:
            polygons: in pixels of a tile
            corner: of the tile
            pixel_size: m
        """
        points = to_ground(shapely.point_on_surface(polygons), corner, pixel_size)
        seen, _ = self.tiles.query(points, predicate="intersects")
        number = np.bincount(seen, minlength=len(points))
        return bins(np.where(number > 0, number, np.nan), EDGES)


def looks_of(bounds: Sequence[tuple[float, float, float, float]]) -> Looks:
    """Return the looks of tiles from their bounds: west, south, east, north in m, in one CRS."""
    return Looks(shapely.STRtree([shapely.box(*one) for one in bounds]))
