"""What is predicted: tiles of an archive or GeoTIFFs of any size, read a rectangle at a time."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from jaxtyping import Bool, Float32
from rasterio.crs import CRS as RasterioCRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from sn6.data.dataset import Source, is_rotated
from sn6.datasets.archive import IMAGE_ID, Archive, chosen_bands
from sn6.datasets.layout import CRS, NODATA, PIXEL, PRODUCTS, Split, tile_path
from sn6.errors import UserError, first_line

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Image:
    """A GeoTIFF in the frame of the network: turned by 180° where it was taken from the south, on a grid of 0.5 m.

    Attributes:
        image_id: names it in the files of footprints
        path: of the GeoTIFF
        height: pixels
        width: pixels
        corner: west and north edge in the units of the CRS; (0, 0) where it has no place
        pixel: size in the units of the CRS; 1 where it has no place
        crs: as "EPSG:<code>", None where it has none
        turned: whether the network sees it turned by 180°
        repeat: how often a pixel on disk is repeated along each side: twice in the product of 1 m
    """

    image_id: str
    path: Path
    height: int
    width: int
    corner: tuple[float, float]
    pixel: float = PIXEL
    crs: str | None = CRS
    turned: bool = False
    repeat: int = 1

    @property
    def metres(self) -> float:
        """The size of a pixel for areas and tolerances; without a CRS, that of the training tiles."""
        return PIXEL if self.crs is None else self.pixel

    def read(
        self, rows: slice, columns: slice, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """A rectangle of the image in the frame of the network, as it is on disk.

        Args:
            rows: with start and stop
            columns: with start and stop
            bands: counted from 1, in the order wanted; a band may come several times

        Returns:
            The bands, and where there is data: nodata is a pixel whose bands are all 0 or all the file's own nodata
            value, or one with NaN or infinity; these come as 0.

        Raises:
            UserError: the file is broken
        """
        if self.turned:
            rows = slice(self.height - rows.stop, self.height - rows.start)
            columns = slice(self.width - columns.stop, self.width - columns.start)
        places = [slice(side.start // self.repeat, -(-side.stop // self.repeat)) for side in (rows, columns)]
        try:
            with opened(self.path) as source:
                pixels = source.read(window=Window.from_slices(*places), out_dtype=np.float32)
                nodata = source.nodata
        except RasterioError as error:
            raise UserError(
                f"{self.path} cannot be read, it is broken or cut short; fetch it again ({first_line(error)})"
            ) from None
        finite = np.isfinite(pixels).all(axis=0)
        valid = (pixels != NODATA).any(axis=0) & finite
        if nodata is not None:
            valid &= (pixels != np.float32(nodata)).any(axis=0)
        if not finite.all():
            pixels[:, ~finite] = 0
        chosen = chosen_bands(pixels, bands)
        if self.repeat > 1:
            down, right = (
                slice(side.start % self.repeat, side.start % self.repeat + side.stop - side.start)
                for side in (rows, columns)
            )
            chosen, valid = (
                array.repeat(self.repeat, axis=-2).repeat(self.repeat, axis=-1)[..., down, right]
                for array in (chosen, valid)
            )
        return (chosen[:, ::-1, ::-1], valid[::-1, ::-1]) if self.turned else (chosen, valid)


def archive_images(root: Path, split: Split, source: Source, wanted: Sequence[str | int] | None) -> list[Image]:
    """The tiles of an archive, turned as in training.

    Args:
        root: of the archive
        split: of the archive
        source: what the network was trained on
        wanted: image ids or numbers of tiles; None for all

    Raises:
        UserError: `root` is no archive, has no such tile, or does not know which way one was taken
    """
    archive = Archive(root)
    tiles = archive.tiles(split, source.product)
    if wanted is not None:
        names = {str(name) for tile in tiles for name in (tile.image_id, tile.image_id.rpartition("_")[2])}
        if unknown := [name for name in wanted if str(name) not in names]:
            raise UserError(f"tiles: {split} of {root} has no tile {unknown[0]}; give an image id or a tile's number")
        chosen = {str(name) for name in wanted}
        tiles = [tile for tile in tiles if {tile.image_id, tile.image_id.rpartition("_")[2]} & chosen]
    images = []
    for tile in tiles:
        west, south, east, north = tile.bounds
        images.append(
            Image(
                tile.image_id,
                tile_path(root, split, source.product, tile.image_id),
                round((north - south) / PIXEL),
                round((east - west) / PIXEL),
                (west, north),
                turned=is_rotated(tile, source),
                repeat=round(PRODUCTS[source.product].pixel / PIXEL),
            )
        )
    return images


def geotiff_images(path: Path, source: Source, turn: bool) -> list[Image]:
    """A GeoTIFF, or those of a folder in the order of their names.

    Args:
        path: of the file or of the folder
        source: what the network was trained on
        turn: whether they were taken from the south

    Raises:
        UserError: there is none; one cannot be opened, has other bands or no usable grid; two have the same name, or
            another CRS or pixel than the rest
    """
    if not path.exists():
        raise UserError(f"images={path}: there is no such file or folder; give a GeoTIFF or a folder of them")
    is_image = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not is_image:
        raise UserError(f"images={path}: the folder holds no {' or '.join(SUFFIXES)} file; give another")
    images = [geotiff_image(one, source, turn) for one in is_image]
    named: dict[str, Image] = {}
    for image in images:
        if image.image_id in named:
            raise UserError(f"{image.path} and {named[image.image_id].path} have one name; rename one of them")
        named[image.image_id] = image
        if (image.crs, image.pixel) != (images[0].crs, images[0].pixel):
            raise UserError(
                f"{image.path} has the CRS {image.crs} and pixels of {image.pixel}, {images[0].path} {images[0].crs} "
                f"and {images[0].pixel}; predict them apart, or reproject one"
            )
    return images


def geotiff_image(path: Path, source: Source, turn: bool) -> Image:
    """What the header of a GeoTIFF tells."""
    bands = PRODUCTS[source.product].bands
    try:
        with opened(path) as file:
            count, crs, transform, (height, width) = file.count, file.crs, file.transform, file.shape
    except RasterioError as error:
        raise UserError(f"{path} cannot be opened as a GeoTIFF; give another ({first_line(error)})") from None
    if count != len(bands):
        raise UserError(
            f"{path} has {count} bands; the network was trained on the {len(bands)} of {source.product} "
            f"({', '.join(bands)})"
        )
    match = IMAGE_ID.search(path.name)
    image_id = f"{match[1]}_{match[2]}" if match else path.stem
    if set(image_id) & set(',"\n'):
        raise UserError(f"{path} has a comma or a quote in its name, which becomes the ImageId of a CSV; rename it")
    repeat = round(PRODUCTS[source.product].pixel / PIXEL)
    size = (height * repeat, width * repeat)
    if transform.is_identity:
        return Image(image_id, path, *size, (0.0, 0.0), 1.0, None, turn, repeat)
    if not transform.is_rectilinear or transform.a <= 0 or abs(transform.a + transform.e) > 1e-3 * transform.a:
        raise UserError(f"{path} is not north-up with square pixels; warp it, by gdalwarp for example")
    corner = (transform.c, transform.f)
    return Image(image_id, path, *size, corner, transform.a / repeat, crs_name(crs, path), turn, repeat)


def crs_name(crs: RasterioCRS | None, path: Path) -> str | None:
    """ "EPSG:<code>" of a CRS in metres.

    Raises:
        UserError: it is in degrees or feet, or has no code
    """
    if crs is None:
        return None
    try:
        in_metres = crs.is_projected and crs.linear_units_factor[1] == 1
    except CRSError:
        in_metres = False
    if not in_metres or crs.to_epsg() is None:
        raise UserError(f"{path} has the CRS {crs}, which is not in metres or has no EPSG code; warp it to {CRS}")
    return f"EPSG:{crs.to_epsg()}"


@contextmanager
def opened(path: Path, mode: str = "r", **profile: Any) -> Iterator[Any]:
    """A dataset of rasterio. One without a place is told of once, where its footprints are written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, mode, **profile) as dataset:
            yield dataset
