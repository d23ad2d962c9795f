"""Images to predict, in the frame of the network: tiles of a data set, or any rasters."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import shapely
from jaxtyping import Bool, Float32, Shaped

from sn6.datasets.declaration import DECIBELS, DataSet, Tile
from sn6.datasets.placed_image import PlacedImage
from sn6.datasets.raster import TILE_DRIVER, is_scaled, open_raster, read_repeated
from sn6.footprints.ground import to_ground


@dataclass(frozen=True)
class TileImage:
    """A tile of a data set, read as training reads it.

    Attributes:
        data_set: that it is of
        tile: of the data set
        product: that is read
    """

    data_set: DataSet = field(repr=False, compare=False)
    tile: Tile
    product: str

    def read(
        self, rows: slice, columns: slice, bands: tuple[int, ...]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle; arguments, result and errors of `DataSet.read_rectangle`."""
        return self.data_set.read_rectangle(self.tile, self.product, bands, rows, columns)


@dataclass(frozen=True)
class Image:
    """An image in the frame of the network: on the grid of its samples, rotated by 180° if imaged from the south.

    Attributes:
        image_id: name in the files of footprints
        path: of the file, or the address that GDAL opens
        raster: what reads it
        bands: of `raster`, counted from 1, in the order of the network's bands, repeated ones included
        height: pixels
        width: pixels
        corner: west and north edge in the units of the CRS; (0, 0) without georeference
        pixel: pixel size in the units of the CRS; 1 without georeference
        pixel_metres: pixel size in m for areas and tolerances; without a CRS that of the training tiles
        crs: "EPSG:<code>", None without CRS
        rotated: whether the network sees the image rotated by 180°
        from_south: whether it was imaged from the south, as far as that is known
        repeat: how often a pixel of `raster` is repeated along both axes: 2 for products of 1 m
        warped_from: pixel size in m of a file that is warped to other pixels while it is read; None where it is not
        area: geometry of the ground to predict, in its CRS, as WKB; None for all
        time: at which it was sensed, in ISO 8601, UTC; None where it is not known
    """

    image_id: str
    path: str
    raster: TileImage | PlacedImage
    bands: tuple[int, ...]
    height: int
    width: int
    corner: tuple[float, float]
    pixel: float
    pixel_metres: float
    crs: str | None
    rotated: bool = False
    from_south: bool = False
    repeat: int = 1
    warped_from: float | None = None
    area: bytes | None = None
    time: str | None = None

    def to_file(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Convert rows and columns from the frame of the network to that of the file, or back."""
        if not self.rotated:
            return rows, columns
        return (
            slice(self.height - rows.stop, self.height - rows.start),
            slice(self.width - columns.stop, self.width - columns.start),
        )

    def read(self, rows: slice, columns: slice) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle in the frame of the network, in the units of the product.

        Args:
            rows: slice with start and stop
            columns: slice with start and stop

        Returns:
            The network's bands, 0 on nodata, and whether each pixel is valid: see `sn6.datasets.raster`. In a tile of
            a data set all bands on disk decide, as in training; in another image the bands of the network.

        Raises:
            UserError: the file is broken or truncated, or its values are complex
        """
        image, valid = read_repeated(
            lambda down, right: self.raster.read(down, right, self.bands), *self.to_file(rows, columns), self.repeat
        )
        return (image[:, ::-1, ::-1], valid[::-1, ::-1]) if self.rotated else (image, valid)

    def stored_as(self) -> tuple[str, bool]:
        """Return the data type of the first band in the file, and whether the file or its units scale the values.

        Raises:
            RasterioError: the file cannot be opened
        """
        if isinstance(self.raster, TileImage):
            driver, bands, is_converted = TILE_DRIVER, self.bands, False
        else:
            driver, bands, is_converted = None, self.raster.bands, self.raster.units != DECIBELS
        with open_raster(self.path, driver) as source:
            return source.dtypes[bands[0] - 1], is_converted or is_scaled(source, bands)

    @cached_property
    def _area(self) -> shapely.Geometry | None:
        if self.area is None:
            return None
        area = shapely.from_wkb(self.area)
        shapely.prepare(area)
        return area

    def has_area_in(self, rows: slice, columns: slice) -> bool:
        """Return whether a rectangle in the frame of the network touches the ground to predict."""
        if self._area is None:
            return True
        down, right = self.to_file(rows, columns)
        west, north = self.corner
        x, y = (
            west + np.array([right.start, right.stop]) * self.pixel,
            north - np.array([down.stop, down.start]) * self.pixel,
        )
        return bool(shapely.intersects(self._area, shapely.box(x[0], y[0], x[1], y[1])))

    def is_in_area(self, polygons: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Return which polygons, in pixels of the file, have their centroid on the ground to predict."""
        if self._area is None:
            return np.ones(len(polygons), dtype=bool)
        centroids = to_ground(shapely.centroid(polygons), self.corner, self.pixel)
        return np.asarray(shapely.intersects(self._area, centroids), dtype=bool)
