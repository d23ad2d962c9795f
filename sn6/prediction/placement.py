"""Read where a GeoTIFF is on the ground, and refuse places from which footprints and areas would be wrong."""

from pathlib import Path

import rasterio
from rasterio.crs import CRS

from sn6.datasets.declaration import Product
from sn6.datasets.georeference import TOLERANCE, centre, indirect_placement, metres_per_unit, place_of, warp_advice
from sn6.errors import UserError


def read_grid(
    raster: rasterio.DatasetReader, path: Path, product: Product
) -> tuple[tuple[float, float], float, str | None]:
    """Return west and north edge, size of a pixel of the labels' grid, and CRS ("EPSG:<code>") of an image.

    An image without georeference has (0, 0), 1 and None.

    Args:
        raster: the open file
        path: of the file, for messages
        product: that the network was trained on; its pixel size is in the command that warps an image

    Raises:
        UserError: the image is placed by other means than an affine transform, is not north-up with square pixels, or
            its CRS is not in metres at its centre or has no EPSG code
    """
    grid, crs = raster.transform, raster.crs
    if grid.is_identity:
        if placed := indirect_placement(raster):
            means, option, place = placed
            raise UserError(
                f"{path} is placed by {means}, without pixels along the axes of a CRS; warp it: "
                f"{warp_advice(path, place, product.pixel_size, option)}",
                kind="wrong_data",
                key=path,
                value=means,
            )
        return (0.0, 0.0), 1.0, None
    x, y = centre(grid, *raster.shape)
    place = place_of(crs, x, y) if crs is not None else None
    advice = warp_advice(path, place, product.pixel_size)
    if not grid.is_rectilinear or grid.a <= 0 or abs(grid.a + grid.e) > 1e-3 * grid.a:
        raise UserError(f"{path} is not north-up with square pixels; warp it: {advice}", kind="wrong_data", key=path)
    if crs is not None and place is None:
        raise UserError(
            f"{path} has CRS {crs_name(crs)}, in which its centre {x:g}, {y:g} is no place on the ground; correct its "
            "CRS or its position, for example with gdal_edit",
            kind="wrong_data",
            key=path,
            value=str(crs),
        )
    if crs is not None and (fault := crs_fault(crs, x, y)):
        raise UserError(
            f"{path} has CRS {crs_name(crs)}, {fault}; warp it: {advice}", kind="wrong_data", key=path, value=str(crs)
        )
    return (grid.c, grid.f), grid.a / product.repeat, None if crs is None else f"EPSG:{crs.to_epsg()}"


def crs_fault(crs: CRS, x: float, y: float) -> str | None:
    """Return why footprints and areas in a CRS would be wrong at a point on the ground; None where they are right."""
    if not crs.is_projected:
        return "which is not in metres"
    wrong = max(metres_per_unit(crs, x, y), key=lambda metres: abs(metres - 1))
    if not abs(wrong - 1) <= TOLERANCE:
        return f"whose unit is {wrong:.4g} m there"
    return None if crs.to_epsg() is not None else "which has no EPSG code"


def crs_name(crs: CRS) -> str:
    """Return the code of a CRS, or its name in quotes."""
    return f"EPSG:{crs.to_epsg()}" if crs.to_epsg() is not None else repr(crs.to_wkt().split('"')[1])
