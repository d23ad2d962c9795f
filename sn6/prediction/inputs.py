"""Find the images to predict: tiles of a data set, or any rasters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sn6.data.source import Source, is_rotated
from sn6.datasets.declaration import DataSet, Split, Tile
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.errors import UserError
from sn6.plots.tile_selection import number_of
from sn6.prediction.images import Image, TileImage
from sn6.prediction.raster_images import ReadOptions, raster_images


def find_images(
    root: Path | None,
    split: Split,
    tiles: Sequence[str] | None,
    images: Sequence[str] | None,
    source: Source,
    options: ReadOptions,
) -> list[Image]:
    """Return the tiles of an archive (`root`), or the rasters `images`; see `archive_images` and `raster_images`.

    Raises:
        UserError: both or none of them are given, or options that the other one needs
    """
    if (root is None) == (images is None):
        raise UserError(
            "give either root= (an archive) or images= (a folder, a pattern, files or addresses)",
            kind="missing_value" if root is None else "conflict",
            key="root",
            value=root,
        )
    if root is not None:
        reasons = {
            "rotate": "are rotated according to its SAR_orientations.txt",
            "bands": "have the bands of their product",
            "units": "have the units of their product",
            "nodata": "have the nodata value of their product",
        }
        for key, reason in reasons.items():
            value: Any = getattr(options, key)
            if value not in (None, False):
                raise UserError(
                    f"{key}= needs images=; the tiles of root= {reason}",
                    kind="conflict",
                    key=key,
                    value=list(value) if key == "bands" else value,
                )
        return archive_images(SpaceNet6(root), split, source, tiles)
    if tiles is not None:
        raise UserError(
            "tiles= needs root=; with images=, give the files to predict",
            kind="conflict",
            key="tiles",
            value=list(tiles),
        )
    assert images is not None
    return raster_images(images, source, options)


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
    return [tile_image(data_set, tile, source) for tile in selected]


def tile_image(data_set: DataSet, tile: Tile, source: Source) -> Image:
    """Return a tile of a data set as an image; arguments and errors of `archive_images`."""
    product = source.product
    height, width = tile.size(product.grid)
    return Image(
        tile.image_id,
        str(data_set.image_path(tile, product.name)),
        TileImage(data_set, tile, product.name),
        source.bands,
        round(height),
        round(width),
        tile.corner,
        pixel=product.grid,
        pixel_metres=product.grid,
        crs=tile.crs or data_set.crs,
        rotated=is_rotated(data_set, tile, source),
        from_south=tile.orientation == 1,
        time=data_set.sensing_time(tile),
    )
