"""Map each building to its surveyed height."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from sn6.targets.target import Activation, Target, TileLabels

UNIT = 10.0  # m: most buildings of SpaceNet 6 are 3 to 30 m high, so that the values are about 1


@dataclass(frozen=True)
class Height(Target):
    """Map each building to its mean height in units of 10 m, the ground to 0, and unknown heights to NaN."""

    activation: ClassVar[Activation] = "linear"

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Return the height of the building at each pixel; where it is NaN, the pixel is left out of the loss."""
        heights = (labels.heights / UNIT).astype(np.float32)
        heights[:1] = 0
        return heights[labels.observed][None]
