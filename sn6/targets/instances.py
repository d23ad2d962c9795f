"""The buildings as they are numbered in a tile, for losses that count or measure them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sn6.targets.target import Target, TileLabels


@dataclass(frozen=True)
class Instances(Target):
    """Give the number of the building at each pixel that the sensor observed, 0 for background.

    Numbers are exact in float32 up to 2**24; those of a tile are far below.
    """

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Return the numbers over a whole tile."""
        return labels.observed[None].astype(np.float32)
