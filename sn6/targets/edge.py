"""Mark the pixels of each building along its own border: the inner edge.

Source: the winner of SpaceNet 6 (zbigniewwojna, 2020) learned the mask, the inner edges and the contacts of buildings.
Those edges, of 1 px, do not survive a blur of 2 px; edges of 2 px, 1 m, do (`benchmarks.oracle`).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32
from pydantic import PositiveFloat

from sn6.targets.distance import border_distances
from sn6.targets.target import Target, TileLabels

ROUNDING = 1e-9  # 0.6 m in pixels of 0.2 m are 2.9999999999999996


@dataclass(frozen=True)
class InnerEdge(Target):
    """Map the pixels of a building within `width` of its own border to 1, all others to 0.

    Attributes:
        width: in m; the edge has at least one pixel
    """

    width: PositiveFloat = 1.0
    stored_range: ClassVar[tuple[float, float] | None] = (0, 1)

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Mark d ≤ `width`, see `sn6.targets.distance.border_distances`: both sides of a party wall."""
        width = max(self.width / labels.pixel_size, 1.0) * (1 + ROUNDING)
        pixels, squares = border_distances(labels.observed, width)
        layer = np.zeros((1, *labels.instances.shape), dtype=np.float32)
        layer.ravel()[pixels[squares <= width**2]] = 1
        return layer
