"""Map each pixel of a building to the vector to the centre of its building.

Source: Cheng et al., Panoptic-DeepLab, CVPR 2020, section 3.2.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int32

from sn6.targets.centre import centres_of
from sn6.targets.target import Activation, Position, Target, TileLabels


@dataclass(frozen=True)
class Offset(Target):
    """Map each pixel of a building to the vector (rows, columns) in m to its centre, see `sn6.targets.centre`.

    Pixels without a building have no centre: they are NaN, and left out of the loss.
    """

    channels: ClassVar[int] = 2
    activation: ClassVar[Activation] = "linear"
    is_length: ClassVar[bool] = True

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "2 h w"]:
        """Compute the vectors, see `offsets`."""
        return offsets(labels.observed) * np.float32(labels.pixel_size)

    def transform(self, pixels: Any, position: Position) -> Any:
        """Flip and rotate the vectors with the image, see `Target.transform`."""
        flip, quarters = position
        row, column = (0, 1), (1, -1 if flip else 1)  # from which channel each comes, and its sign
        for _ in range(quarters):  # anticlockwise: what pointed to the right points up
            row, column = (column[0], -column[1]), row
        moved = pixels[..., [row[0], column[0]], :, :]  # a copy
        moved[..., 0, :, :] *= row[1]
        moved[..., 1, :, :] *= column[1]
        return moved

    def warp(self, pixels: Any, scale: float, rotation: float) -> Any:
        """Scale and rotate the vectors, see `Target.warp`."""
        cosine, sine = (scale * turned(math.radians(rotation)) for turned in (math.cos, math.sin))
        moved = pixels * cosine
        moved[0] -= sine * pixels[1]
        moved[1] += sine * pixels[0]
        return moved


def offsets(instances: Int32[np.ndarray, "h w"]) -> Float32[np.ndarray, "2 h w"]:
    """Return row and column of the building's centre minus those of each pixel, in pixels; NaN on the background."""
    flat = instances.ravel()
    pixels = np.flatnonzero(flat > 0)
    places = np.stack(np.divmod(pixels, instances.shape[1]), axis=1)
    vectors = np.full((2, *instances.shape), np.nan, dtype=np.float32)
    vectors.reshape(2, -1)[:, pixels] = (centres_of(instances)[flat[pixels]] - places).T
    return vectors
