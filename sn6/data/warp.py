"""Scale and rotate crops: the source pixels of each pixel, and one resampling of the layers."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor

ROUNDING = 1e-6  # pixels: a whole number that is not quite one


@dataclass(frozen=True)
class Warp:
    """How the pixels of a crop are scaled and rotated about its centre, after its flip and rotations by 90°.

    Attributes:
        scale: factor of all lengths: at 2 a building of 10 pixels has 20
        rotation: in degrees, anticlockwise
    """

    scale: float = 1.0
    rotation: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Return whether pixels stay where they are, and need no resampling."""
        return self.scale == 1 and self.rotation == 0

    def source_size(self, crop: int) -> int:
        """Return the edge length of the smallest upright square of whole pixels that holds the sources of a crop.

        >>> Warp(scale=0.5).source_size(512), Warp(rotation=90.0).source_size(512), Warp(rotation=5.0).source_size(512)
        (1023, 512, 555)
        """
        angle = math.radians(self.rotation)
        extent = (crop - 1) / self.scale * (abs(math.cos(angle)) + abs(math.sin(angle)))
        return math.ceil(extent - ROUNDING) + 1


class Resampling:
    """Resample the layers of a window about its centre.

    Args:
        warp: scale and rotation
        crop: edge length of the result in pixels
        height: of the window
        width: of the window
        device: of the layers
    """

    def __init__(self, warp: Warp, crop: int, height: int, width: int, device: torch.device | str) -> None:
        self.crop, self.height, self.width = crop, height, width
        angle = math.radians(warp.rotation)
        place = torch.arange(crop, dtype=torch.float64) - (crop - 1) / 2
        along, across = place * math.cos(angle) / warp.scale, place * math.sin(angle) / warp.scale
        # Source of each pixel. One sum of float32, which is rounded equally on every device.
        terms = (along + (height - 1) / 2, across, -across, along + (width - 1) / 2)
        of_row, of_column, down, right = (term.to(device, torch.float32) for term in terms)
        self.rows, self.columns = of_row[:, None] + of_column, down[:, None] + right  # (crop, crop)
        self.is_inside = min(height, width) >= warp.source_size(crop)

    @property
    def inside(self) -> Bool[Tensor, "1 _ _"] | None:
        """Return false where the nearest pixel is beyond the window; None where there is no such pixel."""
        if self.is_inside:
            return None
        rows, columns = self.rows.round(), self.columns.round()
        return ((rows >= 0) & (rows < self.height) & (columns >= 0) & (columns < self.width))[None]

    def nearest(self, layers: dict[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
        """Return the values of the nearest pixels of layers (k, h, w), and 0 beyond the window."""
        places, inside = self._nearest_places(), self.inside
        resampled = {}
        for name, layer in layers.items():
            values = layer.flatten(1).index_select(1, places).unflatten(1, (self.crop, self.crop))
            resampled[name] = values if inside is None else values.masked_fill_(~inside, 0)
        return resampled

    def _nearest_places(self) -> Int64[Tensor, " pixels"]:
        rows, columns = self.rows.round(), self.columns.round()
        if not self.is_inside:
            rows, columns = rows.clamp_(0, self.height - 1), columns.clamp_(0, self.width - 1)
        return (rows * self.width).add_(columns).long().flatten()

    def bilinear(self, maps: Float32[Tensor, "k h w"]) -> Float32[Tensor, "k _ _"]:
        """Interpolate between the four nearest pixels; beyond the window its outermost pixels are repeated."""
        # the unit of grid_sample: -1 and 1 are the edges of the window
        columns = (self.columns + 0.5) * (2 / self.width) - 1
        rows = (self.rows + 0.5) * (2 / self.height) - 1
        grid = torch.stack([columns, rows], dim=-1)
        return F.grid_sample(maps[None], grid[None], padding_mode="border", align_corners=False)[0]
