"""Whether tiles share ground with others, also where they are of data sets in different CRSs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from rasterio.warp import transform_bounds

from sn6.data.folds import overlaps_any
from sn6.datasets.declaration import WORLD


@dataclass(frozen=True, eq=False)
class Ground:
    """Rectangles of the ground.

    Attributes:
        bounds: west, south, east and north of each in metres
        crs: of the bounds, as "EPSG:<code>"
    """

    bounds: Float[np.ndarray, "n 4"]
    crs: str

    def __len__(self) -> int:
        return len(self.bounds)

    def overlapping(self, others: "Ground") -> Bool[np.ndarray, " n"]:
        """Return which rectangles overlap any of the others by more than a centimetre.

        Those in different CRSs are compared by the boxes around them in one that is in metres everywhere.
        """
        if self.crs == others.crs:
            return overlaps_any(self.bounds, others.bounds)
        return overlaps_any(self.on_earth(), others.on_earth())

    def on_earth(self) -> Float[np.ndarray, "n 4"]:
        """Return the boxes around the rectangles in metres of `WORLD`."""
        boxes = [transform_bounds(self.crs, WORLD, *rectangle) for rectangle in self.bounds.tolist()]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)
