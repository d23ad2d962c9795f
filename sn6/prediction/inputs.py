"""Find the images to predict: tiles of an archive, or GeoTIFFs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.errors import RasterioError

from sn6.data.source import Source, is_rotated
from sn6.datasets.declaration import DataSet, Split
from sn6.datasets.raster import open_raster, refuse_complex
from sn6.datasets.spacenet6 import IMAGE_ID, SpaceNet6
from sn6.errors import UserError, first_line
from sn6.plots.tile_selection import number_of
from sn6.prediction.band_selection import select_file_bands
from sn6.prediction.images import Image
from sn6.prediction.placement import read_grid

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class GeoTIFFOptions:
    """How to read GeoTIFFs that are not tiles of an archive.

    Attributes:
        rotate: whether they were imaged from the south
        bands: their bands, counted from 1, in the order of the network's; None for the product's in their order
        check_names: whether bands that are described as others are an error
    """

    rotate: bool = False
    bands: tuple[int, ...] | None = None
    check_names: bool = True


def find_images(
    root: Path | None,
    split: Split,
    tiles: Sequence[str] | None,
    images: Path | None,
    source: Source,
    options: GeoTIFFOptions,
) -> list[Image]:
    """Return the images of an archive (`root`), or the GeoTIFFs `images`; see `archive_images` and `geotiff_images`.

    Raises:
        UserError: both or none of them are given, or options that the other one needs
    """
    if (root is None) == (images is None):
        raise UserError(
            "give either root= (an archive) or images= (a GeoTIFF or a folder of GeoTIFFs)",
            kind="missing_value" if root is None else "conflict",
            key="root",
            value=root,
        )
    if root is not None:
        if options.rotate:
            raise UserError(
                "rotate= needs images=; the tiles of root= are rotated according to its SAR_orientations.txt",
                kind="conflict",
                key="rotate",
                value=options.rotate,
            )
        if options.bands is not None:
            raise UserError(
                "bands= needs images=; the tiles of root= have the bands of their product",
                kind="conflict",
                key="bands",
                value=list(options.bands),
            )
        return archive_images(SpaceNet6(root), split, source, tiles)
    if tiles is not None:
        raise UserError(
            "tiles= needs root=; with images=, give the file or folder to predict",
            kind="conflict",
            key="tiles",
            value=tiles,
        )
    assert images is not None
    return geotiff_images(images, source, options)


def archive_images(data_set: DataSet, split: Split, source: Source, tiles: Sequence[str] | None) -> list[Image]:
    """Return the tiles of an archive, rotated as in training.

    Args:
        data_set: that they are of
        split: of the tiles
        source: product and bands that the network was trained on
        tiles: image ids or tile numbers; None for all

    Raises:
        UserError: there is no such tile, or the look direction of a tile is unknown
    """
    selected = data_set.tiles(split, source.product.name)
    if tiles is not None:
        names = {name for tile in selected for name in (tile.image_id, number_of(tile.image_id))}
        if unknown := [name for name in tiles if name not in names]:
            raise UserError(
                f"unknown tile {unknown[0]!r} in {split} of {data_set.root}; give image ids or tile numbers",
                kind="not_found",
                key="tiles",
                value=unknown[0],
            )
        selected = [tile for tile in selected if {tile.image_id, number_of(tile.image_id)} & set(tiles)]
    images, product = [], source.product
    for tile in selected:
        height, width = tile.size(product.grid)
        west, _, _, north = tile.bounds
        images.append(
            Image(
                tile.image_id,
                data_set.image_path(tile, product.name),
                source.bands,
                round(height),
                round(width),
                (west, north),
                pixel=product.grid,
                pixel_metres=product.grid,
                crs=data_set.crs,
                rotated=is_rotated(data_set, tile, source),
                repeat=product.repeat,
                nodata=product.nodata,
                in_archive=True,
            )
        )
    return images


def geotiff_images(path: Path, source: Source, options: GeoTIFFOptions) -> list[Image]:
    """Return a GeoTIFF, or those of a folder in the order of their names, hidden files left out.

    Args:
        path: file or folder
        source: product and bands that the network was trained on
        options: how to read them

    Raises:
        UserError: there is none; one cannot be opened, has other bands or no usable grid; two have the same name, or
            different CRSs or pixel sizes
    """
    if not path.exists():
        raise UserError(
            f"images={path} does not exist; give a GeoTIFF or a folder of GeoTIFFs",
            kind="not_found",
            key="images",
            value=str(path),
        )
    files = [path] if path.is_file() else visible_geotiffs(path)
    if not files:
        raise UserError(
            f"images={path}: the folder has no {' or '.join(SUFFIXES)} file; give another folder",
            kind="not_found",
            key="images",
            value=str(path),
        )
    images = [geotiff_image(file, source, options) for file in files]
    by_id: dict[str, Image] = {}
    for image in images:
        if other := by_id.get(image.image_id):
            raise UserError(
                f"{other.path} and {image.path} have the same name {image.image_id}; rename one of them",
                kind="conflict",
                key=image.path,
                value=image.image_id,
            )
        by_id[image.image_id] = image
        if (image.crs, image.pixel) != (images[0].crs, images[0].pixel):
            raise UserError(
                f"{image.path} has CRS {image.crs} and pixel size {image.pixel}, but {images[0].path} has "
                f"{images[0].crs} and {images[0].pixel}; predict them separately, or warp it to those: gdalwarp -t_srs "
                f"{images[0].crs} -tr {images[0].pixel:g} {images[0].pixel:g}",
                kind="conflict",
                key=image.path,
                value=image.crs,
            )
    return images


def visible_geotiffs(folder: Path) -> list[Path]:
    """Return the GeoTIFFs of a folder by name, without hidden files such as the ._a.tif that macOS writes."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def geotiff_image(path: Path, source: Source, options: GeoTIFFOptions) -> Image:
    """Read the header of a GeoTIFF; arguments and errors of `geotiff_images`."""
    try:
        with open_raster(path) as raster:
            refuse_complex(raster)
            bands = select_file_bands(raster, path, source, options.bands, options.check_names)
            corner, pixel, crs = read_grid(raster, path, source.product)
            height, width = raster.shape
    except RasterioError as error:
        raise UserError(
            f"{path} cannot be opened as a GeoTIFF; give another file ({first_line(error)})",
            kind="unreadable",
            key=path,
        ) from None
    match = IMAGE_ID.search(path.name)
    image_id = f"{match[1]}_{match[2]}" if match else path.stem
    if set(image_id) & set(',"\n'):
        raise UserError(
            f"{path} has a comma, quote or line break in its name, which becomes the ImageId of a CSV; rename it",
            kind="invalid_value",
            key=path,
            value=image_id,
        )
    repeat = source.product.repeat
    return Image(
        image_id,
        path,
        bands,
        height * repeat,
        width * repeat,
        corner,
        pixel,
        pixel_metres=source.product.grid if crs is None else pixel,
        crs=crs,
        rotated=options.rotate,
        repeat=repeat,
        nodata=source.product.nodata,
    )


def pixel_size_warning(image: Image, trained_at: float) -> str | None:
    """Return a warning if an image has no CRS, or another pixel size than the training tiles, in m."""
    if image.crs is None:
        units = "pixels, y upwards" if image.pixel == 1 else "the units of the file"
        return f"{image.path} has no CRS: footprints.* are in {units}, areas assume pixels of {trained_at} m"
    if abs(image.pixel - trained_at) > 0.1 * trained_at:
        return (
            f"{image.path} has pixels of {image.pixel:g} m, but the network was trained at {trained_at} m: resample "
            "the image, or use scales="
        )
    return None
