"""Read the pixels of a raster file, and decide which of them have data.

`read_window` is the one decision for training, statistics, `check`, pictures and prediction. A pixel is nodata where

- a band that is used holds the nodata value that the file declares for it, or NaN or infinity,
- the file's mask (internal, or in a .msk file) or an alpha band says so,
- no band on disk has a value: each is the value of the data set's own rule (0 in SpaceNet 6), or nodata itself. Integer
  files that declare this value say no more than the rule, so a 0 in one band of a dark optical pixel is a value.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float32, Shaped
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from sn6.errors import UserError

TILE_DRIVER = "GTiff"  # of the tiles of an archive
COMPLEX_ADVICE = "decibels are expected: calibrate them, and write 10*log10(|z|**2) as float32"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, both byte orders


@contextmanager
def open_raster(path: Path | str, driver: str | None = None) -> Iterator[rasterio.DatasetReader]:
    """Open a raster file in the process that reads it, without rasterio's warning about a missing georeference.

    Numpy's warning about an overflow is off as well: rasterio compares a nodata value such as 1e39 with the limits of
    float32 whenever it is asked for it.

    Args:
        path: the file, or an address that GDAL opens
        driver: TILE_DRIVER for the tiles of an archive, BigTIFF and COG included: a VRT under the name of a tile could
            read other files and ask servers. None for files that a user names: whatever GDAL opens.

    Raises:
        RasterioError: the file cannot be opened, or not by the driver
        UserError: the mask file of a tile is not a GeoTIFF; GDAL opens it by any driver
    """
    if driver is not None:
        check_mask_file(Path(f"{path}.msk"))
    with np.errstate(over="ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path, driver=driver)
        with source:
            yield source


def check_mask_file(path: Path) -> None:
    """Raise a UserError where a mask file exists and is not a TIFF."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        return
    if start not in TIFF_STARTS:
        raise UserError(f"{path} is not a GeoTIFF; replace or remove it", kind="wrong_data", key=path)


def data_bands(source: rasterio.DatasetReader) -> list[int]:
    """Return the bands of a file, counted from 1, without alpha bands, which say where there is data."""
    return [band for band, kind in zip(source.indexes, source.colorinterp, strict=True) if kind != ColorInterp.alpha]


def read_window(
    source: rasterio.DatasetReader, bands: Sequence[int], window: Window | None = None, rule: float | None = 0.0
) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
    """Read a rectangle of a file in the units that the file declares: stored value · scale + offset.

    Args:
        source: an open file, see `open_raster`
        bands: counted from 1 in the file, in the order of the result; one may be repeated. An alpha band among them is
            read as values and masks nothing.
        window: in pixels of the file; None for the whole file
        rule: pixels with this value in all bands on disk are nodata; None where only the file says what is

    Returns:
        The bands, 0 on nodata, and which pixels are valid.

    Raises:
        RasterioError: the file is broken or truncated
        UserError: the values are complex
    """
    return to_values(source, read_stored(source, bands, window), bands, window, rule)


def read_repeated(
    read: Callable[[slice, slice], tuple[Shaped[np.ndarray, "c _ _"], Bool[np.ndarray, "_ _"]]],
    rows: slice,
    columns: slice,
    repeat: int,
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
    """Read a rectangle of a grid on which each pixel of an image is repeated along both axes.

    Args:
        read: function of rows and columns of the image, which returns its pixels and which of them are valid
        rows: of the grid, with start and stop
        columns: of the grid, with start and stop
        repeat: how often a pixel is repeated
    """
    if repeat == 1:
        return read(rows, columns)
    pixels, valid = read(*(slice(side.start // repeat, -(-side.stop // repeat)) for side in (rows, columns)))
    down, right = (slice(side.start % repeat, side.start % repeat + side.stop - side.start) for side in (rows, columns))
    pixels, valid = (array.repeat(repeat, axis=-2).repeat(repeat, axis=-1) for array in (pixels, valid))
    return pixels[:, down, right], valid[down, right]


def stored_bands(source: rasterio.DatasetReader, bands: Sequence[int]) -> list[int]:
    """Return the bands to read for `bands`: the data set's rule looks at all of them but alpha."""
    return sorted({*data_bands(source), *bands})


def read_stored(
    source: rasterio.DatasetReader, bands: Sequence[int], window: Window | None = None
) -> Shaped[np.ndarray, "stored h w"]:
    """Read the `stored_bands` as they are in the file; those of several data types as float64.

    Raises:
        RasterioError: the file is broken or truncated
        UserError: the values are complex
    """
    refuse_complex(source)
    stored = stored_bands(source, bands)
    if len({source.dtypes[band - 1] for band in stored}) == 1:
        return np.asarray(source.read(stored, window=window))
    return np.stack([source.read(band, window=window).astype(np.float64) for band in stored])


def to_values(
    source: rasterio.DatasetReader,
    stored: Shaped[np.ndarray, "stored h w"],
    bands: Sequence[int],
    window: Window | None = None,
    rule: float | None = 0.0,
) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
    """Return values and valid pixels as `read_window` does, of what `read_stored` has read."""
    on_disk = stored_bands(source, bands)
    pixels = scaled(source, stored, on_disk)
    used = [on_disk.index(band) for band in bands]
    absent = absent_values(source, stored, pixels, on_disk, rule)
    valid = valid_pixels(stored, absent, used, rule)
    mask = read_mask(source, bands, window)
    if mask is not None:
        valid &= mask
    if used != list(range(len(pixels))):
        pixels = pixels[used]
    is_filled = mask is not None or is_scaled(source, on_disk) or any(of_band is not None for of_band in absent)
    if pixels.size and is_filled and not valid.all():
        np.copyto(pixels, 0, where=~valid)
    return pixels, valid


def valid_pixels(
    stored: Shaped[np.ndarray, "stored h w"],
    absent: Sequence[Bool[np.ndarray, "h w"] | None],
    used: Sequence[int],
    rule: float | None,
) -> Bool[np.ndarray, "h w"]:
    """Return which pixels have a value in all `used` bands, and by the data set's rule in one band or more.

    Args:
        stored: values on disk
        absent: of each band, which values are absent; None where none is
        used: indices of bands
        rule: a pixel whose bands are all absent or of this value has none
    """
    empty = np.ones(stored.shape[1:], dtype=bool)
    lacking = np.zeros(stored.shape[1:], dtype=bool)
    for number, (values, is_absent) in enumerate(zip(stored, absent, strict=True)):
        if rule is not None:
            is_empty = np.equal(values, rule)
            empty &= is_empty if is_absent is None else is_empty | is_absent
        elif is_absent is not None:
            empty &= is_absent
        else:
            empty[:] = False
        if is_absent is not None and number in used:
            lacking |= is_absent
    return np.asarray(~(empty | lacking))


def absent_values(
    source: rasterio.DatasetReader,
    stored: Shaped[np.ndarray, "stored h w"],
    pixels: Float32[np.ndarray, "stored h w"],
    on_disk: Sequence[int],
    rule: float | None,
) -> list[Bool[np.ndarray, "h w"] | None]:
    """Return of each band which values are its declared nodata, NaN or infinity; None where it has none of these."""
    is_exact = stored.dtype.kind in "iu" and not is_scaled(source, on_disk)  # integers that no cast makes infinite
    absent: list[Bool[np.ndarray, "h w"] | None] = []
    for number, band in enumerate(on_disk):
        is_absent = None
        if not is_exact and not (finite := np.isfinite(pixels[number])).all():
            is_absent = ~finite
        nodata = nodata_as_stored(source.nodatavals[band - 1], source.dtypes[band - 1], rule)
        if nodata is not None:
            is_nodata = np.equal(stored[number], nodata)
            is_absent = is_nodata if is_absent is None else is_absent | is_nodata
        absent.append(is_absent)
    return absent


def nodata_as_stored(nodata: float | None, dtype: str, rule: float | None) -> np.generic | None:
    """Return a declared nodata value in its band's data type; None where other rules decide, or no value can equal it.

    Files declare it as decimal text: -3.40282347e+38 means the smallest float32, 1e39 nothing in float32, and -9999
    nothing in uint16. NaN and infinity are nodata in any case. A declared value of integers that is the data set's rule
    says no more than the rule: optical images declare 0, and a dark pixel may be 0 in one of their bands.
    """
    if nodata is None or not np.isfinite(nodata):
        return None
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        if nodata == rule:
            return None
        whole, limits = int(nodata), np.iinfo(kind)
        return kind.type(whole) if whole == nodata and limits.min <= whole <= limits.max else None
    with np.errstate(over="ignore"):
        value = kind.type(nodata)
    return value if np.isfinite(value) else None


def is_scaled(source: rasterio.DatasetReader, bands: Sequence[int]) -> bool:
    """Return whether the file declares a scale or an offset for any of the bands."""
    return any((source.scales[band - 1], source.offsets[band - 1]) != (1, 0) for band in bands)


def scaled(
    source: rasterio.DatasetReader, stored: Shaped[np.ndarray, "stored h w"], bands: Sequence[int]
) -> Float32[np.ndarray, "stored h w"]:
    """Return stored value · scale + offset of each band; infinity where that is beyond float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        if is_scaled(source, bands):
            scales, offsets = (
                np.array([numbers[band - 1] for band in bands])[:, None, None]
                for numbers in (source.scales, source.offsets)
            )
            stored = stored.astype(np.float64) * scales + offsets
        return stored.astype(np.float32, copy=False)


def mask_bands(source: rasterio.DatasetReader, bands: Sequence[int]) -> list[int]:
    """Return those of `bands` whose masks must be read: one where all have the same mask, none without masks."""
    own, flags = [], source.mask_flag_enums
    for band in sorted(set(bands)):
        kinds = set(flags[band - 1])
        if kinds & {MaskFlags.all_valid, MaskFlags.alpha} or kinds == {MaskFlags.nodata}:
            continue  # alpha bands and nodata values are read as such
        if MaskFlags.per_dataset in kinds:
            return [band]
        own.append(band)
    return own


def read_mask(
    source: rasterio.DatasetReader, bands: Sequence[int], window: Window | None
) -> Bool[np.ndarray, "h w"] | None:
    """Return where alpha bands and the masks of `bands` have data; None where the file has neither.

    An alpha band is read as a band: GDAL takes it for the mask in files of two or four bands only.
    """
    alpha = sorted(set(source.indexes) - set(stored_bands(source, bands)))
    masks = [source.read(band, window=window) > 0 for band in alpha]
    masks += [source.read_masks(band, window=window) > 0 for band in mask_bands(source, bands)]
    return np.logical_and.reduce(masks) if masks else None


def refuse_complex(source: rasterio.DatasetReader) -> None:
    """Raise a UserError where a file has complex values."""
    if any(dtype.startswith("complex") for dtype in source.dtypes):
        raise UserError(
            f"{source.name} has complex values ({source.dtypes[0]}), but {COMPLEX_ADVICE}",
            kind="wrong_data",
            key=source.name,
            value=source.dtypes[0],
        )
