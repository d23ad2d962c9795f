"""Place an image on the grid on which a network sees it, and refuse images of which footprints would be wrong."""

from typing import NamedTuple

import rasterio

from sn6.datasets.declaration import Product
from sn6.datasets.georeference import indirect_placement, warp_advice
from sn6.datasets.placed_image import Grid, grid_of, is_metric_grid, is_north_up, native_pixel_size
from sn6.errors import UserError

MAX_FACTOR = 2.0  # between the pixel size of an image and the network's
ROUNDING = 1.001


class Placement(NamedTuple):
    """Where the pixels of an image are, as they are read.

    Attributes:
        grid: of the pixels; without a CRS in the units of the file, or in pixels where it has none
        crs: of the grid, None without CRS
        warped_from: pixel size of the file in m where it is warped to the grid; None where it is read as it is
    """

    grid: Grid
    crs: str | None
    warped_from: float | None


def place(source: rasterio.DatasetReader, path: str, product: Product) -> Placement:
    """Return where an image is, with the pixel size of the product.

    An image without a CRS is used as it is.

    Args:
        source: the open file
        path: of the file, for messages
        product: that the network was trained on

    Raises:
        UserError: the image is placed by polynomials or arrays, is at no place, has no CRS and is not north-up, or its
            pixels are more than MAX_FACTOR times larger or smaller than the network's
    """
    if source.transform.is_identity and not source.gcps[0] and (placed := indirect_placement(source)):
        means, option, where = placed
        raise UserError(
            f"{path} is placed by {means}; warp it: {warp_advice(path, where, product.pixel_size, option)}",
            kind="wrong_data",
            key=path,
            value=means,
        )
    if source.crs is None and not source.gcps[0]:
        return unplaced(source, path, product.repeat)
    grid, is_warped = grid_of(source, path, product.pixel_size)
    if not is_warped:
        return Placement(grid, grid.crs, None)
    native = own_pixel_size(source, grid)
    factor = max(native / product.pixel_size, product.pixel_size / native)
    if factor > MAX_FACTOR * ROUNDING:
        raise UserError(
            f"{path} has pixels of {native:.3g} m, but the network was trained at {product.pixel_size:g} m, and images "
            f"are resampled by up to a factor of {MAX_FACTOR:g}; give an image or a network of another resolution",
            kind="wrong_data",
            key=path,
            value=round(native, 4),
        )
    return Placement(grid, grid.crs, native)


def unplaced(source: rasterio.DatasetReader, path: str, repeat: int) -> Placement:
    """Return the grid of an image without a CRS: in the units of the file, or in samples where it has no transform."""
    transform = source.transform
    if transform.is_identity:
        return Placement(Grid("", 0.0, 0.0, float(repeat), *source.shape), None, None)
    if not is_north_up(transform):
        raise UserError(
            f"{path} has no CRS and is not north-up with square pixels; write its CRS into it, for example with "
            "gdal_edit",
            kind="wrong_data",
            key=path,
        )
    return Placement(Grid("", transform.c, transform.f, transform.a, *source.shape), None, None)


def own_pixel_size(source: rasterio.DatasetReader, grid: Grid) -> float:
    """Return the pixel size of a file in m, before it is warped to a grid."""
    if not source.gcps[0] and is_metric_grid(source):
        return float(source.transform.a)
    return native_pixel_size(source, rasterio.crs.CRS.from_string(grid.crs))
