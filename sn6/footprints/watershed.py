"""Buildings one by one from seeds between them: a watershed of the mask, with maps of contact or inner edges."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from sn6.footprints.flooding import connected_seeds, flood_components
from sn6.footprints.polygonizer import Maps, NonNegative, Polygonizer, Probability


@dataclass(frozen=True)
class SeededWatershed(Polygonizer):
    """Flood each component of building pixels from its seeds, the highest probabilities m of the mask first.

    Seeds are the 4-connected parts of at least `min_seed` of the component's pixels with m·(1−c)^a·(1−e)^b > `seed`,
    where c is the map `contact` and e the map `edge`, and 0 where the heads lack one of them. The flood covers the
    whole component, and a component without a seed is one building. The winners of SpaceNet 6 flooded only where
    m·(1−c) was high, from seeds of at least 110 px, so that a small house was swallowed by its neighbour.

    Attributes:
        seed: value that a seed is above
        min_seed: minimum area of a seed in m²
        contact: a, the exponent of 1−c
        edge: b, the exponent of 1−e
    """

    seed: Probability = 0.5
    min_seed: NonNegative = 2.5
    contact: NonNegative = 1.0
    edge: NonNegative = 1.0

    uses: ClassVar[tuple[str, ...]] = ("contact", "edge")
    candidates: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "threshold": (0.3, 0.5, 0.7),
        "seed": (0.3, 0.5, 0.7),
        "min_area": (20.0, 40.0, 60.0, 80.0),
    }

    def split(
        self, maps: Maps, components: Int32[np.ndarray, "height width"], pixel_size: float
    ) -> Int32[np.ndarray, "height width"]:
        """Divide components by a watershed from their seeds."""
        mask, pixels = maps["mask"][0], np.flatnonzero(components)
        value = mask.ravel()[pixels]
        for name, exponent in (("contact", self.contact), ("edge", self.edge)):
            if name in maps:
                value = value * (1 - maps[name].ravel()[pixels]) ** exponent
        is_seed = np.zeros(components.shape, dtype=bool)
        is_seed.ravel()[pixels] = value > self.seed
        return flood_components(components, connected_seeds(is_seed, self.min_seed / pixel_size**2), -mask)

    def missing(self, heads: Collection[str]) -> list[str]:
        """Return the maps that the heads lack: the mask, and contact or edge, of which one is enough."""
        lacks_both = not set(self.uses) & set(heads)
        return super().missing(heads) + ([" or ".join(self.uses)] if lacks_both else [])

    def __str__(self) -> str:
        """Return the operating point in words."""
        return f"{super().__str__()}, seeds > {self.seed:g}"
