"""Read rectangles of any georeferenced raster on a north-up grid of square pixels in metres.

An image whose pixels are such a grid already is read as it is. Any other one (in degrees, with ground control points,
rotated, or of another pixel size) is warped while it is read, by GDAL's warper behind rasterio's WarpedVRT.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import rasterio
from jaxtyping import Bool, Float32
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform
from rasterio.windows import Window

from sn6.datasets.declaration import Bounds
from sn6.datasets.georeference import TOLERANCE, centre, metres_per_unit, place_of, place_of_points, utm_zone
from sn6.datasets.radar_units import Units
from sn6.datasets.raster import is_scaled, open_raster, read_window, refuse_complex, scaled
from sn6.errors import UserError, first_line

WARP_ERROR = 1e-3  # pixels; with GDAL's 0.125 a value would depend on the rectangle that is read
SQUARE = 1e-3  # relative difference of the edges of a square pixel, and of pixel sizes that are equal


class Grid(NamedTuple):
    """A north-up grid of square pixels.

    Attributes:
        crs: "EPSG:<code>", in metres
        west: m
        north: m
        pixel_size: m
        height: pixels
        width: pixels
    """

    crs: str
    west: float
    north: float
    pixel_size: float
    height: int
    width: int

    @property
    def transform(self) -> Affine:
        """Return the affine transform from pixels to metres."""
        return from_origin(self.west, self.north, self.pixel_size, self.pixel_size)

    def bounds(self, rows: slice, columns: slice) -> Bounds:
        """Return west, south, east and north of a rectangle in metres."""
        west, north = (self.west + columns.start * self.pixel_size, self.north - rows.start * self.pixel_size)
        east, south = (self.west + columns.stop * self.pixel_size, self.north - rows.stop * self.pixel_size)
        return west, south, east, north


@dataclass(frozen=True)
class PlacedImage:
    """A raster on its grid.

    Attributes:
        path: a file, or an address that GDAL opens
        grid: that its samples are on
        bands: numbers of the product's bands in the file, counted from 1
        warped: whether it is warped to the grid while it is read
        units: of its values
        nodata: pixels that have this value in every band have no data; None where only the file says what has none
    """

    path: str
    grid: Grid
    bands: tuple[int, ...]
    warped: bool
    units: Units
    nodata: float | None

    def read(
        self, rows: slice, columns: slice, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle inside the grid.

        Args:
            rows: slice with start and stop
            columns: slice with start and stop
            bands: of the product, counted from 1, in the order of the result

        Returns:
            The bands in decibels, or in the file's own units where `units` are those, 0 on nodata; and which pixels are
            valid: all bands of the product decide.

        Raises:
            UserError: the file is broken
        """
        window = Window.from_slices(rows, columns)
        try:
            with open_raster(self.path) as source:
                if self.warped:
                    values, valid = self._read_warped(source, window)
                else:
                    values, valid = read_window(source, self.bands, window, self.nodata)
        except RasterioError as error:
            raise UserError(
                f"{self.path} is broken or truncated ({first_line(error)}); download it again",
                kind="unreadable",
                key=self.path,
            ) from None
        decibels, valid = self.units.to_decibels(values, valid)
        if tuple(bands) == tuple(range(1, len(decibels) + 1)):
            return decibels, valid
        return decibels[np.asarray(bands) - 1], valid

    def _read_warped(
        self, source: rasterio.DatasetReader, window: Window
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle through GDAL's warper, which interpolates between valid pixels, in the stored units."""
        with open_warped(source, self.grid, self.nodata) as warped:
            stored = warped.read(list(self.bands), window=window)
            valid = np.isfinite(stored).all(axis=0)
            if warped.count > source.count:  # the alpha band of the warper, for masks of the source
                valid &= warped.read(warped.count, window=window) > 0
        values = scaled(source, stored, self.bands) if is_scaled(source, self.bands) else stored
        return np.where(valid, values, 0).astype(np.float32), valid


@contextmanager
def open_warped(source: rasterio.DatasetReader, grid: Grid, nodata: float | None) -> Iterator[WarpedVRT]:
    """Open the view of a raster on a grid: float32, NaN on nodata, or with an alpha band where no value means nodata.

    Pixels are averaged where the grid is coarser than the source, and interpolated bilinearly where it is finer.
    """
    of_file = next((value for value in source.nodatavals if value is not None), None)
    declared = nodata if of_file is None else of_file
    # as in `sn6.datasets.raster`: the rule looks at all bands, a value that the file declares at each
    is_rule = declared == nodata and (of_file is None or np.dtype(source.dtypes[0]).kind in "iu")
    options: dict[str, Any] = {"crs": grid.crs, "dtype": "float32", "add_alpha": True, "tolerance": WARP_ERROR}
    if declared is not None:
        options = options | {
            "src_nodata": declared,
            "nodata": math.nan,
            "UNIFIED_SRC_NODATA": "YES" if is_rule else "NO",
            "add_alpha": False,
        }
    scale = native_pixel_size(source, CRS.from_string(grid.crs)) / grid.pixel_size
    target = {"transform": grid.transform, "width": grid.width, "height": grid.height}
    target |= {"resampling": Resampling.average if scale < 2 / 3 else Resampling.bilinear}
    target |= {
        "XSCALE": repr(scale),
        "YSCALE": repr(scale),
    }  # GDAL's own estimate depends on the rectangle that is read
    if not source.gcps[0]:
        with WarpedVRT(source, **options, **target) as warped:
            yield warped
        return
    # With a given transform, rasterio would ignore the ground control points: the view has a grid of its own first.
    with WarpedVRT(source, **options, resampling=Resampling.bilinear, XSCALE="1", YSCALE="1") as own:
        if grid_of_view(own, grid.crs) == grid:
            yield own
            return
        missing = {"src_nodata": math.nan, "nodata": math.nan} if declared is not None else {}
        with WarpedVRT(own, crs=grid.crs, dtype="float32", tolerance=WARP_ERROR, **target, **missing) as warped:
            yield warped


def grid_of_view(warped: WarpedVRT, crs: str) -> Grid:
    """Return the grid that GDAL has chosen for a view."""
    transform = warped.transform
    return Grid(crs, transform.c, transform.f, transform.a, warped.height, warped.width)


def native_pixel_size(source: rasterio.DatasetReader, zone: CRS) -> float:
    """Return the pixel size of a raster in m: the square root of the ground that its central pixel covers.

    With ground control points it is that of a grid in `zone` with as many pixels along the diagonal.
    """
    points, crs = source.gcps
    if points:
        transform, _, _ = calculate_default_transform(crs, zone, source.width, source.height, gcps=points)
        return float(transform.a)
    along_x, along_y = metres_per_unit(source.crs, *centre(source.transform, *source.shape))
    return math.sqrt(abs(source.transform.determinant) * along_x * along_y)


def crs_of(source: rasterio.DatasetReader) -> CRS:
    """Return the CRS of the ground control points, or of the affine transform."""
    points, crs = source.gcps
    return crs if points else source.crs


def extent(source: rasterio.DatasetReader) -> dict[str, Any]:
    """Return the ground control points, or the bounds in units of the CRS, as rasterio's functions take them."""
    points, _ = source.gcps
    if points:
        return {"gcps": points}
    corners = [
        source.transform @ corner for corner in ((0, 0), (source.width, 0), (0, source.height), source.shape[::-1])
    ]
    xs, ys = zip(*corners, strict=True)
    return {"left": min(xs), "bottom": min(ys), "right": max(xs), "top": max(ys)}


def place_image(path: str, pixel_size: float | None) -> tuple[Grid, bool]:
    """Return the grid of a raster, and whether it has to be warped to it.

    Args:
        path: a file, or an address that GDAL opens
        pixel_size: of the grid in m; None for that of the file

    Raises:
        UserError: it cannot be opened, is complex, or is not georeferenced
    """
    try:
        with open_raster(path) as source:
            refuse_complex(source)
            return grid_of(source, path, pixel_size)
    except RasterioError as error:
        raise UserError(
            f"{path} cannot be opened as a raster ({first_line(error)}); give another file", kind="unreadable", key=path
        ) from None


def grid_of(source: rasterio.DatasetReader, path: str, pixel_size: float | None) -> tuple[Grid, bool]:
    """Return the grid of an open raster, and whether it has to be warped to it; errors of `place_image`."""
    points, points_crs = source.gcps
    if points and points_crs is not None:
        if points_crs.is_geographic and crosses_antimeridian([point.x for point in points]):
            raise UserError(  # of which GDAL would read next to nothing
                f"{path} has ground control points on both sides of the antimeridian; write them in metres of the UTM "
                "zone of their place",
                kind="wrong_data",
                key=path,
            )
        place = place_of_points(points, points_crs)
    elif source.crs is not None and not source.transform.is_identity:
        place = place_of(source.crs, *centre(source.transform, *source.shape))
    else:
        raise UserError(
            f"{path} has no CRS or no position; write them into the file, for example with gdal_edit",
            kind="wrong_data",
            key=path,
        )
    if place is None:
        raise UserError(
            f"{path} is at no place on the ground in its CRS; correct its CRS or its position",
            kind="wrong_data",
            key=path,
        )
    transform = source.transform
    if not points and is_metric_grid(source):
        own = float(transform.a)
        if pixel_size is None or abs(pixel_size - own) <= SQUARE * own:
            code = f"EPSG:{source.crs.to_epsg()}"
            return Grid(code, transform.c, transform.f, own, source.height, source.width), False
    target = source.crs if not points and is_metric(source) else utm_zone(place)
    if points and pixel_size is None:
        with WarpedVRT(source, crs=target) as own:
            return grid_of_view(own, f"EPSG:{target.to_epsg()}"), True
    return warped_grid(source, target, pixel_size or native_pixel_size(source, target)), True


def crosses_antimeridian(longitudes: Sequence[float]) -> bool:
    """Return whether longitudes, from -180 to 180 or from 0 to 360 degrees, are on both sides of the antimeridian."""
    west, east = min(longitudes), max(longitudes)
    return east - west > 180 or west < 180 < east


def is_metric(source: rasterio.DatasetReader) -> bool:
    """Return whether the units of a raster's CRS are metres on the ground at its centre, and the CRS has a code."""
    along = metres_per_unit(source.crs, *centre(source.transform, *source.shape))
    return source.crs.to_epsg() is not None and all(abs(metres - 1) <= TOLERANCE for metres in along)


def is_metric_grid(source: rasterio.DatasetReader) -> bool:
    """Return whether a raster is north-up with square pixels in metres."""
    return is_north_up(source.transform) and is_metric(source)


def is_north_up(grid: Affine) -> bool:
    """Return whether a grid has rows from north to south, columns from west to east, and square pixels."""
    return grid.b == grid.d == 0 and grid.a > 0 and abs(grid.a + grid.e) <= SQUARE * grid.a


def warped_grid(source: rasterio.DatasetReader, crs: CRS, pixel_size: float) -> Grid:
    """Return the grid that contains a raster, with corners at multiples of its pixel size."""
    size = source.width, source.height
    transform, width, height = calculate_default_transform(
        crs_of(source), crs, *size, resolution=pixel_size, **extent(source)
    )
    west = math.floor(transform.c / pixel_size) * pixel_size
    north = math.ceil(transform.f / pixel_size) * pixel_size
    return Grid(f"EPSG:{crs.to_epsg()}", west, north, pixel_size, height + 1, width + 1)
