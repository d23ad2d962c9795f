"""Mark the pixels of buildings."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from sn6.targets.target import Target, TileLabels


@dataclass(frozen=True)
class Mask(Target):
    """Map the pixels of all buildings to 1, all others to 0."""

    stored_range: ClassVar[tuple[float, float] | None] = (0, 1)

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Return the pixels of buildings, of which nodata is none."""
        return (labels.observed > 0).astype(np.float32)[None]
