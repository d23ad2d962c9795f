"""Inspect one image of a tile: its header and all its pixels."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float64, Shaped
from rasterio.errors import RasterioError

from sn6.datasets.archive import to_label_grid
from sn6.datasets.cache import fingerprint
from sn6.datasets.headers import Bounds
from sn6.datasets.layout import CRS, NODATA, PRODUCTS
from sn6.datasets.statistics import TileStatistics, compute_tile_statistics
from sn6.errors import first_line
from sn6.footprints import Polygons
from sn6.inspection.faults import Fault
from sn6.inspection.histograms import Histogram


@dataclass(frozen=True, eq=False)
class Image:
    """The measured values of one image.

    Attributes:
        path: the file
        product: its product
        shape: height and width in pixels on disk
        bounds: west, south, east, north in metres
        pixels: height times width
        valid: number of pixels that are not nodata
        minimum, maximum: finite extremes of each band over valid pixels, NaN where there are none
        not_finite: number of values that are NaN or infinite
        negative: number of values below 0
        digest: digest of the decoded pixels
        statistics: sums for the normalisation; None where a value is not finite
    """

    path: Path
    product: str
    shape: tuple[int, int]
    bounds: Bounds
    pixels: int
    valid: int
    minimum: Float64[np.ndarray, " bands"]
    maximum: Float64[np.ndarray, " bands"]
    not_finite: int
    negative: int
    digest: str
    statistics: TileStatistics | None


def header_faults(source: rasterio.DatasetReader, path: Path, product: str) -> list[Fault]:
    """Return the differences between the header of a file and its product."""
    expected, faults = PRODUCTS[product], []
    if source.count != len(expected.bands):
        faults.append(Fault("bands", str(path), f"{source.count} bands; {product} has {len(expected.bands)}"))
    if set(source.dtypes) != {expected.dtype}:
        dtypes = "/".join(sorted(set(source.dtypes)))
        faults.append(Fault("dtype", str(path), f"data type {dtypes}; {product} has {expected.dtype}"))
    if source.crs is None or source.crs.to_epsg() != int(CRS.removeprefix("EPSG:")):
        faults.append(Fault("crs", str(path), f"CRS {source.crs}; the archive has {CRS}"))
    return faults


def inspect_image(
    path: Path, product: str, footprints: Polygons, histogram: Histogram | None
) -> tuple[Image | None, list[Fault]]:
    """Read an image and measure its values.

    Args:
        path: GeoTIFF to read
        product: product that it should be of
        footprints: polygons of the mask, in pixels of 0.5 m
        histogram: counts the pixels of the image as well, if its values are finite; None for none

    Returns:
        The image, None where it cannot be read or its header is not that of the product; and its faults.
    """
    try:
        with rasterio.open(path) as source:
            bounds = tuple(source.bounds)
            faults = header_faults(source, path, product)
            values = source.read()
    except (RasterioError, OSError) as error:
        return None, [Fault("unreadable", str(path), f"{first_line(error)}; download it again")]
    if faults:
        return None, faults
    valid = (values != NODATA).any(axis=0)
    image = measure_image(values, valid, path, product, bounds, footprints)
    if image.not_finite:
        message = f"{image.not_finite} values are NaN or infinite; download it again"
        faults.append(Fault("values", str(path), message))
    elif histogram is not None:
        histogram.add(values, valid)
    if image.negative:
        faults.append(Fault("negative", str(path), f"{image.negative} values are negative"))
    if not image.valid:
        faults.append(Fault("nodata", str(path), "all pixels are nodata"))
    return image, faults


def measure_image(
    values: Shaped[np.ndarray, "bands h w"],
    valid: Bool[np.ndarray, "h w"],
    path: Path,
    product: str,
    bounds: Bounds,
    footprints: Polygons,
) -> Image:
    """Measure the pixels of an image as they are on disk; `valid` is false on nodata."""
    minimum, maximum = extremes(values, valid)
    not_finite = int(values.size - np.isfinite(values).sum())
    statistics = None
    if not not_finite:
        pixels, mask = to_label_grid(values.astype(np.float32), product), to_label_grid(valid[None], product)[0]
        statistics = compute_tile_statistics(pixels, mask, footprints, fingerprint(path))
    return Image(
        path=path,
        product=product,
        shape=valid.shape,
        bounds=bounds,
        pixels=valid.size,
        valid=int(valid.sum()),
        minimum=minimum,
        maximum=maximum,
        not_finite=not_finite,
        negative=int((values < 0).sum()),
        digest=blake2b(values.tobytes(), digest_size=16).hexdigest(),
        statistics=statistics,
    )


def extremes(
    values: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, " bands"], Float64[np.ndarray, " bands"]]:
    """Return the smallest and the largest finite value of each band over valid pixels; NaN where there are none."""
    inside = values[:, valid]  # (bands, valid pixels)
    if not inside.size:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    if not (finite := np.isfinite(inside)).all():
        inside = np.where(finite, inside, np.nan)
    return np.fmin.reduce(inside, axis=1).astype(np.float64), np.fmax.reduce(inside, axis=1).astype(np.float64)
