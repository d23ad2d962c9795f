"""Buildings one by one from the distance to their own borders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from sn6.errors import UserError
from sn6.footprints.flooding import connected_seeds, flood_components
from sn6.footprints.polygonizer import Maps, Polygonizer, Positive


@dataclass(frozen=True)
class DistanceWatershed(Polygonizer):
    """Flood each component of building pixels from its inner parts, the pixels farthest from a border first.

    Seeds are the 4-connected parts of the component in which the map `distance`, the distance to the border of the
    pixel's own building, party walls included, is above `seed`. A component without a seed is one building.

    Attributes:
        seed: m, less than `reach`
        reach: distance in m at which the map is 1, that of the target
    """

    seed: Positive = 1.5
    reach: Positive = 5.0

    needs: ClassVar[tuple[str, ...]] = ("mask", "distance")
    candidates: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "threshold": (0.3, 0.5, 0.7),
        "seed": (0.75, 1.5, 2.25, 3.0),
        "min_area": (20.0, 40.0, 60.0, 80.0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed >= self.reach:
            raise UserError(
                f"invalid seed={self.seed}: must be less than reach={self.reach}, the highest distance of the map",
                kind="invalid_value",
                key="seed",
                value=self.seed,
            )

    def split(
        self, maps: Maps, components: Int32[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Divide components by a watershed from their inner parts."""
        distance = maps["distance"][0]
        seeds = connected_seeds((distance > self.seed / self.reach) & (components > 0))
        return flood_components(components, seeds, -distance)

    def __str__(self) -> str:
        """Return the operating point in words."""
        return f"{super().__str__()}, seeds > {self.seed:g} m"
