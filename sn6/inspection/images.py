"""One image of a tile read whole: what is wrong with it, and what its values are."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float64, Shaped
from rasterio.errors import RasterioError

from sn6.datasets.archive import on_label_grid
from sn6.datasets.cache import fingerprint
from sn6.datasets.layout import CRS, NODATA, PRODUCTS
from sn6.datasets.statistics import TileStatistics, compute_tile_statistics
from sn6.errors import first_line
from sn6.footprints import Polygons
from sn6.inspection.faults import Fault


@dataclass(frozen=True, eq=False)
class Image:
    """What was read of an image.

    Attributes:
        path: of the file
        product: that it is of
        shape: height and width in pixels on disk
        bounds: west, south, east, north in metres
        pixels: height times width
        valid: pixels that are not nodata
        low, high: least and largest finite value of each band over valid pixels, NaN where there is none
        infinite: values that are NaN or infinite
        negative: values under 0
        digest: of the decoded pixels
        sums: what the tile adds to the statistics; None where a value is not finite
    """

    path: Path
    product: str
    shape: tuple[int, int]
    bounds: tuple[float, float, float, float]
    pixels: int
    valid: int
    low: Float64[np.ndarray, " bands"]
    high: Float64[np.ndarray, " bands"]
    infinite: int
    negative: int
    digest: str
    sums: TileStatistics | None


def header_faults(source: rasterio.DatasetReader, path: Path, product: str) -> list[Fault]:
    """Where the header is not the product's."""
    wanted, found = PRODUCTS[product], []
    if source.count != len(wanted.bands):
        found.append(Fault("bands", str(path), f"{source.count} bands, {product} has {len(wanted.bands)}"))
    if set(source.dtypes) != {wanted.dtype}:
        found.append(Fault("dtype", str(path), f"{'/'.join(sorted(set(source.dtypes)))}, {product} is {wanted.dtype}"))
    if source.crs is None or source.crs.to_epsg() != int(CRS.removeprefix("EPSG:")):
        found.append(Fault("crs", str(path), f"{source.crs}, the archive's is {CRS}"))
    return found


def inspect_image(path: Path, product: str, footprints: Polygons) -> tuple[Image | None, list[Fault]]:
    """Reads an image; no values where its header is not the product's.

    Args:
        path: of the GeoTIFF
        product: that it should be of
        footprints: those of the mask, in pixels of 0.5 m
    """
    try:
        with rasterio.open(path) as source:
            bounds = tuple(source.bounds)
            faults = header_faults(source, path, product)
            values = source.read()
    except (RasterioError, OSError) as error:
        return None, [Fault("unreadable", str(path), f"{first_line(error)}; fetch it again")]
    if faults:
        return None, faults
    image = values_of(values, path, product, bounds, footprints)
    if image.infinite:
        faults.append(Fault("values", str(path), f"{image.infinite} values are NaN or infinite; fetch it again"))
    if image.negative:
        faults.append(Fault("negative", str(path), f"{image.negative} values are negative"))
    if not image.valid:
        faults.append(Fault("nodata", str(path), "all pixels are nodata"))
    return image, faults


def values_of(
    values: Shaped[np.ndarray, "bands h w"],
    path: Path,
    product: str,
    bounds: tuple[float, float, float, float],
    footprints: Polygons,
) -> Image:
    """What the pixels of a file on disk hold."""
    valid = (values != NODATA).any(axis=0)
    low, high = extremes(values, valid)
    infinite = int(values.size - np.isfinite(values).sum())
    sums = None
    if not infinite:
        fine = on_label_grid(values.astype(np.float32), product)
        sums = compute_tile_statistics(fine, on_label_grid(valid[None], product)[0], footprints, fingerprint(path))
    return Image(
        path=path,
        product=product,
        shape=valid.shape,
        bounds=bounds,
        pixels=valid.size,
        valid=int(valid.sum()),
        low=low,
        high=high,
        infinite=infinite,
        negative=int((values < 0).sum()),
        digest=blake2b(values.tobytes(), digest_size=16).hexdigest(),
        sums=sums,
    )


def extremes(
    values: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, " bands"], Float64[np.ndarray, " bands"]]:
    """The least and the largest finite value of each band over valid pixels."""
    seen = values[:, valid]
    if not seen.size:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    if not (finite := np.isfinite(seen)).all():
        seen = np.where(finite, seen, np.nan)
    return np.fmin.reduce(seen, axis=1).astype(np.float64), np.fmax.reduce(seen, axis=1).astype(np.float64)
