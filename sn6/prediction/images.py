"""Read rectangles of the images to predict, tiles of an archive or GeoTIFFs of any size."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from jaxtyping import Bool, Float32
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from sn6.datasets.archive import select_bands
from sn6.datasets.layout import CRS, NODATA, PIXEL
from sn6.errors import UserError, first_line


@dataclass(frozen=True)
class Image:
    """A GeoTIFF in the frame of the network: on a grid of 0.5 m, rotated by 180° if imaged from the south.

    Attributes:
        image_id: name in the files of footprints
        path: the GeoTIFF
        height: pixels
        width: pixels
        corner: west and north edge in the units of the CRS; (0, 0) without georeference
        pixel: pixel size in the units of the CRS; 1 without georeference
        crs: "EPSG:<code>", None without CRS
        rotated: whether the network sees the image rotated by 180°
        repeat: how often a pixel of the file is repeated along both axes: 2 for products of 1 m
    """

    image_id: str
    path: Path
    height: int
    width: int
    corner: tuple[float, float]
    pixel: float = PIXEL
    crs: str | None = CRS
    rotated: bool = False
    repeat: int = 1

    @property
    def pixel_metres(self) -> float:
        """Return the pixel size in metres for areas and tolerances; without a CRS that of the training tiles."""
        return PIXEL if self.crs is None else self.pixel

    def to_file(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Convert rows and columns from the frame of the network to that of the file, or back."""
        if not self.rotated:
            return rows, columns
        return (
            slice(self.height - rows.stop, self.height - rows.start),
            slice(self.width - columns.stop, self.width - columns.start),
        )

    def read(
        self, rows: slice, columns: slice, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle in the frame of the network, in the units of the file.

        Args:
            rows: slice with start and stop
            columns: slice with start and stop
            bands: counted from 1, in the order of the result, repeated ones included

        Returns:
            The bands, and whether each pixel is valid. Nodata are pixels whose bands are all 0 or all the file's
            nodata value, or with NaN or infinity in any band; the latter are returned as 0.

        Raises:
            UserError: the file is broken or truncated
        """
        region = self.to_file(rows, columns)
        window = [slice(side.start // self.repeat, -(-side.stop // self.repeat)) for side in region]
        try:
            with open_raster(self.path) as raster:
                pixels = raster.read(window=Window.from_slices(*window), out_dtype=np.float32)
                nodata = raster.nodata
        except RasterioError as error:
            raise UserError(
                f"{self.path} is broken or truncated ({first_line(error)}); download it again",
                kind="unreadable",
                key=self.path,
            ) from None
        finite = np.isfinite(pixels).all(axis=0)
        valid = (pixels != NODATA).any(axis=0) & finite
        if nodata is not None:
            valid &= (pixels != np.float32(nodata)).any(axis=0)
        if not finite.all():
            pixels[:, ~finite] = 0
        image = select_bands(pixels, bands)
        if self.repeat > 1:
            down, right = (slice(s.start % self.repeat, s.start % self.repeat + s.stop - s.start) for s in region)
            image, valid = (
                array.repeat(self.repeat, axis=-2).repeat(self.repeat, axis=-1)[..., down, right]
                for array in (image, valid)
            )
        return (image[:, ::-1, ::-1], valid[::-1, ::-1]) if self.rotated else (image, valid)


@contextmanager
def open_raster(path: Path, mode: str = "r", **profile: Any) -> Iterator[Any]:
    """Open a dataset of rasterio, without rasterio's warning about a missing georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, mode, **profile) as dataset:
            yield dataset
