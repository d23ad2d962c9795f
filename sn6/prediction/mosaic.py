"""Store the outputs of networks for a large image on disk by window, and blend them when they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from sn6.data.store_layers import write_array
from sn6.models.sliding_window import windows_1d

Region = tuple[slice, slice]  # rows and columns, with start and stop


@dataclass(frozen=True)
class Mosaic:
    """Write and read the outputs of the heads, before their activation, for an image.

    Windows may be written in any order and by several processes.

    Attributes:
        folder: folder of the windows
        height: height of the image in pixels
        width: width of the image in pixels
        window: edge length of a window in pixels
        overlap: minimum overlap of neighbouring windows in pixels
        is_needed: whether a window, by its rows and columns, is predicted; None for all
    """

    folder: Path
    height: int
    width: int
    window: int
    overlap: int
    is_needed: Callable[[slice, slice], bool] | None = None

    def regions(self) -> list[Region]:
        """Return rows and columns of each window that is needed; errors of `windows_1d`."""
        rows, columns = (windows_1d(size, self.window, self.overlap) for size in (self.height, self.width))
        regions = [(slice(r.start, r.stop), slice(c.start, c.stop)) for r in rows for c in columns]
        return [region for region in regions if self.is_needed is None or self.is_needed(*region)]

    def path(self, region: Region) -> Path:
        """Return the file of a window."""
        return self.folder / f"{region[0].start}_{region[1].start}.npy"

    def write(self, region: Region, outputs: Float32[np.ndarray, "k h w"]) -> None:
        """Write the outputs of a window, NaN on nodata."""
        write_array(self.path(region), outputs)

    def read(self, rows: slice, columns: slice) -> Float32[np.ndarray, "k h w"]:
        """Read the blended outputs of a rectangle, NaN on nodata and outside of the windows that are needed.

        All of these must be written.
        """
        size = rows.stop - rows.start, columns.stop - columns.start
        total: Any = None
        weights = None if self.is_needed is None else np.zeros(size, dtype=np.float32)
        for row in windows_1d(self.height, self.window, self.overlap):
            top, bottom = max(row.start, rows.start), min(row.stop, rows.stop)
            for column in windows_1d(self.width, self.window, self.overlap):
                left, right = max(column.start, columns.start), min(column.stop, columns.stop)
                if top >= bottom or left >= right:
                    continue
                region = slice(row.start, row.stop), slice(column.start, column.stop)
                if self.is_needed is not None and not self.is_needed(*region):
                    continue
                inner = np.s_[top - row.start : bottom - row.start, left - column.start : right - column.start]
                weight = np.outer(row.blend_weight[inner[0]], column.blend_weight[inner[1]])
                part = np.load(self.path(region), mmap_mode="r")[:, *inner] * weight
                if total is None:
                    total = np.zeros((len(part), *size), dtype=np.float32)
                outer = np.s_[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
                total[:, *outer] += part
                if weights is not None:
                    weights[outer] += weight
        if weights is None:
            return total
        if total is None:
            total = np.zeros((self.channels(), *size), dtype=np.float32)
        return np.divide(total, weights, out=np.full_like(total, np.nan), where=weights > 0)

    def channels(self) -> int:
        """Return the number of channels of the windows that are written."""
        return len(np.load(next(self.folder.glob("*.npy")), mmap_mode="r"))
