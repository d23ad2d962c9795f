"""Read rectangles of the images to predict, tiles of an archive or GeoTIFFs of any size."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float32
from rasterio.errors import RasterioError
from rasterio.windows import Window

from sn6.datasets.raster import TILE_DRIVER, open_raster, read_window
from sn6.datasets.tile_files import select_bands
from sn6.errors import UserError, first_line


@dataclass(frozen=True)
class Image:
    """A GeoTIFF in the frame of the network: on the grid of its samples, rotated by 180° if imaged from the south.

    Attributes:
        image_id: name in the files of footprints
        path: the GeoTIFF
        bands: of the file, counted from 1, in the order of the network's bands, repeated ones included
        height: pixels
        width: pixels
        corner: west and north edge in the units of the CRS; (0, 0) without georeference
        pixel: pixel size in the units of the CRS; 1 without georeference
        pixel_metres: pixel size in m for areas and tolerances; without a CRS that of the training tiles
        crs: "EPSG:<code>", None without CRS
        rotated: whether the network sees the image rotated by 180°
        repeat: how often a pixel of the file is repeated along both axes: 2 for products of 1 m
        nodata: pixels with this value in all bands have no data, see `sn6.datasets.declaration.Product`
        in_archive: whether it is a tile of an archive, read as training reads it
    """

    image_id: str
    path: Path
    bands: tuple[int, ...]
    height: int
    width: int
    corner: tuple[float, float]
    pixel: float
    pixel_metres: float
    crs: str | None
    rotated: bool = False
    repeat: int = 1
    nodata: float | None = 0.0
    in_archive: bool = False

    def to_file(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Convert rows and columns from the frame of the network to that of the file, or back."""
        if not self.rotated:
            return rows, columns
        return (
            slice(self.height - rows.stop, self.height - rows.start),
            slice(self.width - columns.stop, self.width - columns.start),
        )

    def open(self) -> AbstractContextManager[rasterio.DatasetReader]:
        """Open the file: a tile of an archive as a GeoTIFF only, another image by whatever driver reads it."""
        return open_raster(self.path, TILE_DRIVER if self.in_archive else None)

    def read_window(
        self, source: rasterio.DatasetReader, window: Window
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle of the opened file in its own frame; see `read`."""
        if self.in_archive:
            image, valid = read_window(source, source.indexes, window, self.nodata)
            return select_bands(image, self.bands), valid
        return read_window(source, self.bands, window, self.nodata)

    def read(self, rows: slice, columns: slice) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle in the frame of the network, in the units that the file declares.

        Args:
            rows: slice with start and stop
            columns: slice with start and stop

        Returns:
            The network's bands, 0 on nodata, and whether each pixel is valid: see `sn6.datasets.raster`. In a tile of
            an archive all bands on disk decide, as in training; in another image the bands of the network.

        Raises:
            UserError: the file is broken or truncated, or its values are complex
        """
        region = self.to_file(rows, columns)
        window = [slice(side.start // self.repeat, -(-side.stop // self.repeat)) for side in region]
        try:
            with self.open() as source:
                image, valid = self.read_window(source, Window.from_slices(*window))
        except RasterioError as error:
            raise broken(self.path, error) from None
        if self.repeat > 1:
            down, right = (slice(s.start % self.repeat, s.start % self.repeat + s.stop - s.start) for s in region)
            image, valid = (
                array.repeat(self.repeat, axis=-2).repeat(self.repeat, axis=-1)[..., down, right]
                for array in (image, valid)
            )
        return (image[:, ::-1, ::-1], valid[::-1, ::-1]) if self.rotated else (image, valid)


def broken(path: Path, error: RasterioError) -> UserError:
    """Return the error of a file whose pixels cannot be read."""
    return UserError(
        f"{path} is broken or truncated ({first_line(error)}); download it again", kind="unreadable", key=path
    )
