"""Footprints as the components of a mask: buildings that touch are one footprint."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from sn6.footprints.polygonizer import Maps, Polygonizer


@dataclass(frozen=True)
class Threshold(Polygonizer):
    """Make a footprint of each 4-connected component of the pixels above the threshold."""

    divides: ClassVar[bool] = False

    def split(
        self, maps: Maps, components: Int32[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Return the components as they are."""
        return components
