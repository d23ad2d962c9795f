"""The logits of a large image, window by window on disk, blended where they are read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from sn6.files import atomic_write
from sn6.models.sliding_window import windows_1d


@dataclass(frozen=True)
class Mosaic:
    """A map of logits that memory need not hold. Windows may be written in any order and by several processes.

    Attributes:
        folder: of the windows
        height: of the image in pixels
        width: of the image in pixels
        window: side of a window in pixels
        overlap: pixels that neighbouring windows share at least
    """

    folder: Path
    height: int
    width: int
    window: int
    overlap: int

    def places(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each window."""
        rows, columns = (windows_1d(size, self.window, self.overlap) for size in (self.height, self.width))
        return [(slice(r.start, r.stop), slice(c.start, c.stop)) for r in rows for c in columns]

    def path(self, place: tuple[slice, slice]) -> Path:
        """The file of a window."""
        return self.folder / f"{place[0].start}_{place[1].start}.npy"

    def write(self, place: tuple[slice, slice], logits: Float32[np.ndarray, "h w"]) -> None:
        """Keeps the logits of a window, NaN on nodata."""
        with atomic_write(self.path(place)) as part:
            np.save(part, logits)

    def read(self, rows: slice, columns: slice) -> Float32[np.ndarray, "h w"]:
        """The blended logits of a rectangle, NaN on nodata. All windows must be there."""
        logits = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        for row in windows_1d(self.height, self.window, self.overlap):
            top, bottom = max(row.start, rows.start), min(row.stop, rows.stop)
            for column in windows_1d(self.width, self.window, self.overlap):
                left, right = max(column.start, columns.start), min(column.stop, columns.stop)
                if top >= bottom or left >= right:
                    continue
                file = self.path((slice(row.start, row.stop), slice(column.start, column.stop)))
                inside = np.s_[top - row.start : bottom - row.start, left - column.start : right - column.start]
                share = np.outer(row.share[inside[0]], column.share[inside[1]])
                part = np.load(file, mmap_mode="r")[inside] * share
                logits[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] += part
        return logits
