"""Inspect one image of a tile: its header and all its pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float32, Float64, Shaped
from rasterio.errors import RasterioError

from sn6.datasets.cache import image_fingerprint
from sn6.datasets.declaration import Bounds, Product
from sn6.datasets.headers import header_faults
from sn6.datasets.raster import (
    TILE_DRIVER,
    is_scaled,
    mask_bands,
    open_raster,
    read_stored,
    to_values,
)
from sn6.datasets.statistics import TileStatistics, compute_tile_statistics
from sn6.datasets.tile_files import to_label_grid
from sn6.errors import UserError, first_line
from sn6.footprints import Polygons
from sn6.inspection.faults import Fault
from sn6.inspection.histograms import Histogram


@dataclass(frozen=True, eq=False)
class Image:
    """The measured values of one image.

    Attributes:
        path: the file
        product: name of its product
        shape: height and width in pixels on disk
        bounds: west, south, east, north in metres
        pixels: height times width
        valid: number of pixels that are not nodata
        minimum, maximum: extremes of each band over valid pixels, NaN where there are none
        not_finite: number of values on disk that are NaN or infinite
        negative: number of values below 0 in valid pixels
        digest: digest of the decoded pixels
        statistics: sums for the normalisation
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
    statistics: TileStatistics


def inspect_image(
    path: Path, product: Product, crs: str, footprints: Polygons, histogram: Histogram | None
) -> tuple[Image | None, list[Fault]]:
    """Read an image and measure its values.

    Args:
        path: GeoTIFF to read
        product: product that it should be of
        crs: that it should have
        footprints: polygons of the mask, in pixels of the labels' grid
        histogram: counts the valid pixels of the image as well; None for none

    Returns:
        The image, None where it cannot be read or its header is not that of the product; and its faults.
    """
    try:
        with open_raster(path, TILE_DRIVER) as source:
            faults = [Fault(fault.kind, str(path), fault.message) for fault in header_faults(source, product, crs)]
            if faults:
                return None, faults
            image, values, valid = measure_image(source, path, product, footprints)
            faults = [Fault(kind, str(path), message) for kind, message in declared(source, product)]
    except UserError as error:  # the mask file is not a GeoTIFF
        return None, [Fault("unreadable", str(path), str(error))]
    except (RasterioError, OSError) as error:
        return None, [Fault("unreadable", str(path), f"{first_line(error)}; download it again")]
    if histogram is not None:
        histogram.add(values, valid)
    if image.not_finite:
        message = f"{image.not_finite} values are NaN or infinite; their pixels are nodata"
        faults.append(Fault("values", str(path), message))
    if image.negative:
        faults.append(Fault("negative", str(path), f"{image.negative} values are negative"))
    if not image.valid:
        faults.append(Fault("nodata", str(path), "all pixels are nodata"))
    return image, faults


def declared(source: rasterio.DatasetReader, product: Product) -> Iterator[tuple[str, str]]:
    """Find what a header declares besides the product and training applies, each with the kind of its fault."""
    if values := {f"{nodata:g}" for nodata in source.nodatavals if nodata not in (None, product.nodata)}:
        yield "nodata value", f"pixels of value {', '.join(sorted(values))} are nodata, as the file declares"
    if is_scaled(source, source.indexes):
        scales, offsets = (sorted(set(numbers)) for numbers in (source.scales, source.offsets))
        yield "scale", f"values are multiplied by {scales} and added to {offsets}, as the file declares"
    if mask_bands(source, source.indexes):
        yield "mask", "pixels are nodata where the file's mask says so"


def measure_image(
    source: rasterio.DatasetReader, path: Path, product: Product, footprints: Polygons
) -> tuple[Image, Float32[np.ndarray, "bands h w"], Bool[np.ndarray, "h w"]]:
    """Read and measure an image; return it, its values in the units of the product, and its valid pixels."""
    stored = read_stored(source, source.indexes)
    finite, digest = int(np.count_nonzero(np.isfinite(stored))), sha256(stored.tobytes()).hexdigest()
    values, valid = to_values(source, stored, source.indexes, rule=product.nodata)
    minimum, maximum = extremes(values, valid)
    pixels, mask = to_label_grid(values, product), to_label_grid(valid[None], product)[0]
    image = Image(
        path=path,
        product=product.name,
        shape=valid.shape,
        bounds=tuple(source.bounds),
        pixels=valid.size,
        valid=int(np.count_nonzero(valid)),
        minimum=minimum,
        maximum=maximum,
        not_finite=stored.size - finite,
        negative=int(np.count_nonzero(values < 0)),
        digest=digest,
        statistics=compute_tile_statistics(pixels, mask, footprints, image_fingerprint(path)),
    )
    return image, values, valid


def extremes(
    values: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, " bands"], Float64[np.ndarray, " bands"]]:
    """Return the smallest and the largest value of each band over valid pixels; NaN where there are none."""
    if not valid.any():
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    inside = [band[valid] for band in values]  # band by band: values[:, valid] is not contiguous, so slow
    smallest, largest = ([extreme(band) for band in inside] for extreme in (np.min, np.max))
    return np.array(smallest, np.float64), np.array(largest, np.float64)
