"""Open any rasters as images for a network: folders, patterns, files and addresses."""

import fnmatch
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rasterio import DatasetReader
from rasterio.errors import RasterioError

from sn6.data.source import Source
from sn6.datasets.declaration import Product
from sn6.datasets.image_files import find_files, image_names
from sn6.datasets.placed_image import PlacedImage
from sn6.datasets.radar_units import UnitName, Units
from sn6.datasets.raster import open_raster, refuse_complex
from sn6.datasets.spacenet6 import IMAGE_ID, start_of_pass
from sn6.errors import UserError, counted, first_line
from sn6.prediction.band_selection import select_file_bands
from sn6.prediction.images import Image
from sn6.prediction.placement import place


@dataclass(frozen=True)
class ReadOptions:
    """How to read rasters that are not tiles of an archive.

    Attributes:
        rotate: whether they were imaged from the south, or patterns of the names of those that were
        bands: numbers or names of their bands, in the order of the network's; None for those that the network needs
        check_names: whether bands are found by their descriptions, and those that are described as others are an error
        units: of their values; None for those of the training images
        nodata: pixels with this value in all bands have no data; None for that of the training images
    """

    rotate: bool | tuple[str, ...] = False
    bands: tuple[str, ...] | None = None
    check_names: bool = True
    units: Units | None = None
    nodata: float | None = None


def given_units(product: Product, name: UnitName | None, scale: float | None, offset: float | None) -> Units | None:
    """Return the units that the user has given, None for none; a part that is missing is that of the training images.

    With other units than those of the training images, scale and offset are 1 and 0 where they are not given.

    Args:
        product: that the network was trained on
        name: of the units
        scale: factor of the values
        offset: dB

    Raises:
        UserError: the product is optical, whose values have no decibels
    """
    given = {"units": name, "scale": scale, "offset": offset}
    key = next((key for key, value in given.items() if value is not None), None)
    if key is None:
        return None
    if product.optical:
        raise UserError(
            f"{key}= is for radar, but the network was trained on optical images; leave it out",
            kind="conflict",
            key=key,
            value=given[key],
        )
    base = product.units if name in (None, product.units.name) else Units(name)
    return Units(base.name, base.scale if scale is None else scale, base.offset if offset is None else offset)


def raster_images(images: Sequence[str], source: Source, options: ReadOptions) -> list[Image]:
    """Return rasters as images, in the order of their paths.

    Args:
        images: see `sn6.datasets.image_files.find_files`
        source: product and bands that the network was trained on
        options: how to read them

    Raises:
        UserError: there is none; one cannot be opened, has other bands or cannot be placed; two have the same name, or
            one without a CRS has not the place and pixel size of the others, or a pattern of `rotate` fits none
    """
    names = image_names(find_files(images, "images"), image_id_of)
    for pattern in options.rotate if isinstance(options.rotate, tuple) else ():
        if not fnmatch.filter(names.values(), pattern):
            first = next(iter(names.values()))
            raise UserError(
                f"rotate={pattern} fits no image; give names or patterns, such as {first} or *_south*",
                kind="not_found",
                key="rotate",
                value=pattern,
            )
    opened = [raster_image(file, name, source, options) for file, name in names.items()]
    for image in opened:
        if None in (image.crs, opened[0].crs) and (image.crs, image.pixel) != (opened[0].crs, opened[0].pixel):
            raise UserError(
                f"{image.path} has CRS {image.crs} and pixel size {image.pixel}, but {opened[0].path} has "
                f"{opened[0].crs} and {opened[0].pixel}; predict images without a CRS separately",
                kind="conflict",
                key=image.path,
                value=image.crs,
            )
    return opened


def image_id_of(path: Path) -> str:
    """Return the image id of a file of the challenge, or the stem of another file."""
    match = IMAGE_ID.search(path.name)
    return f"{match[1]}_{match[2]}" if match else path.stem


def raster_image(path: str, image_id: str, source: Source, options: ReadOptions) -> Image:
    """Read the header of a raster; arguments and errors of `raster_images`."""
    product = source.product
    if set(image_id) & set(',"\n'):
        raise UserError(
            f"{path} has a comma, quote or line break in its name, which becomes the ImageId of a CSV; rename it",
            kind="invalid_value",
            key=path,
            value=image_id,
        )
    try:
        with open_raster(path) as raster:
            refuse_complex(raster)
            bands = select_file_bands(raster, path, source, options.bands, options.check_names)
            grid, crs, warped_from = place(raster, path, product)
            time = sensing_time(raster, path)
    except RasterioError as error:
        raise UserError(
            f"{path} cannot be opened as a raster; give another file ({first_line(error)})",
            kind="unreadable",
            key=path,
        ) from None
    units = product.units if options.units is None else options.units
    nodata = product.nodata if options.nodata is None else options.nodata
    pixel = grid.pixel_size / product.repeat
    from_south = is_from_south(image_id, options.rotate)
    return Image(
        image_id,
        path,
        PlacedImage(path, grid, bands, warped_from is not None, units, nodata),
        tuple(range(1, len(bands) + 1)),
        grid.height * product.repeat,
        grid.width * product.repeat,
        (grid.west, grid.north),
        pixel,
        pixel_metres=product.grid if crs is None else pixel,
        crs=crs,
        rotated=from_south,
        from_south=from_south,
        repeat=product.repeat,
        warped_from=warped_from,
        time=time,
    )


def sensing_time(raster: DatasetReader, path: str) -> str | None:
    """Return when a file was sensed, in ISO 8601, UTC; None where neither its name nor its metadata tell.

    The name is that of a file of SpaceNet 6. The metadata are what GDAL reads from the files of providers
    (`ACQUISITIONDATETIME`, UTC), and the tag DateTime of TIFF.
    """
    match = IMAGE_ID.search(Path(path).name)
    if match:
        return start_of_pass(match[1])
    text = raster.tags(ns="IMAGERY").get("ACQUISITIONDATETIME") or raster.tags().get("TIFFTAG_DATETIME", "")
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y:%m:%d %H:%M:%S"):
        with suppress(ValueError):
            return f"{datetime.strptime(text.strip(), form).isoformat()}Z"
    return None


def is_from_south(image_id: str, rotate: bool | tuple[str, ...]) -> bool:
    """Return whether an image is among those that were imaged from the south.

    >>> is_from_south("pass_3", ("pass_3", "south_*")), is_from_south("pass_4", ("pass_3", "south_*"))
    (True, False)
    """
    return rotate if isinstance(rotate, bool) else any(fnmatch.fnmatchcase(image_id, pattern) for pattern in rotate)


def placement_notes(images: Sequence[Image], product: Product) -> list[str]:
    """Return a line about the images without a CRS, and one about those that are warped while they are read."""
    notes = []
    if unplaced := [image for image in images if image.crs is None]:
        first = unplaced[0]
        units = "pixels, y upwards" if first.pixel == 1 else "the units of the file"
        notes.append(
            f"{first.path}{others(unplaced)} has no CRS: footprints.* are in {units}, areas assume pixels of "
            f"{product.grid:g} m"
        )
    if warped := [image for image in images if image.warped_from is not None]:
        first = warped[0]
        notes.append(
            f"{first.path}{others(warped)} is warped while it is read: from pixels of {first.warped_from:.3g} m to "
            f"those of the network, {product.pixel_size:.3g} m, in {first.crs}"
        )
    return notes


def others(images: Sequence[Image]) -> str:
    """Return how many images there are besides the first, for a message."""
    return f" (and {counted(len(images) - 1, 'other image')})" if len(images) > 1 else ""
