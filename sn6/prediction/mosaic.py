"""Store the logits of a large image on disk by window, and blend them when they are read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from sn6.data.store_layers import write_array
from sn6.models.sliding_window import windows_1d

Region = tuple[slice, slice]  # rows and columns, with start and stop


@dataclass(frozen=True)
class Mosaic:
    """Write and read the logits of an image; windows may be written in any order and by several processes.

    Attributes:
        folder: folder of the windows
        height: height of the image in pixels
        width: width of the image in pixels
        window: edge length of a window in pixels
        overlap: minimum overlap of neighbouring windows in pixels
    """

    folder: Path
    height: int
    width: int
    window: int
    overlap: int

    def regions(self) -> list[Region]:
        """Return rows and columns of each window; errors of `windows_1d`."""
        rows, columns = (windows_1d(size, self.window, self.overlap) for size in (self.height, self.width))
        return [(slice(r.start, r.stop), slice(c.start, c.stop)) for r in rows for c in columns]

    def path(self, region: Region) -> Path:
        """Return the file of a window."""
        return self.folder / f"{region[0].start}_{region[1].start}.npy"

    def write(self, region: Region, logits: Float32[np.ndarray, "h w"]) -> None:
        """Write the logits of a window, NaN on nodata."""
        write_array(self.path(region), logits)

    def read(self, rows: slice, columns: slice) -> Float32[np.ndarray, "h w"]:
        """Read the blended logits of a rectangle, NaN on nodata; all windows must be written."""
        logits = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        for row in windows_1d(self.height, self.window, self.overlap):
            top, bottom = max(row.start, rows.start), min(row.stop, rows.stop)
            for column in windows_1d(self.width, self.window, self.overlap):
                left, right = max(column.start, columns.start), min(column.stop, columns.stop)
                if top >= bottom or left >= right:
                    continue
                file = self.path((slice(row.start, row.stop), slice(column.start, column.stop)))
                inner = np.s_[top - row.start : bottom - row.start, left - column.start : right - column.start]
                weight = np.outer(row.blend_weight[inner[0]], column.blend_weight[inner[1]])
                part = np.load(file, mmap_mode="r")[inner] * weight
                logits[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] += part
        return logits
