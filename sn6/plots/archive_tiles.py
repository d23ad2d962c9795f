"""Draw the tiles of an archive to PNG files: their images, their footprints, and proposals for them."""

from pathlib import Path

import numpy as np

from sn6.datasets.declaration import DataSet, Tile
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.metrics.matching import counted_area, match_tile
from sn6.plots.proposals import proposals_figure, tile_figure
from sn6.plots.rendering import COMPOSITE, composite, contrast, grey, render_background, span
from sn6.plots.tiles import TileView, overview_figure, save_figure

IMAGED_FROM = {0: "imaged from the north", 1: "imaged from the south", None: "look direction unknown"}


def optical_product(data_set: DataSet, tile: Tile, product: str | None) -> str | None:
    """Return the optical image to draw: `product`, or the first that the tile has.

    Raises:
        UserError: the tile does not have `product`
    """
    available = [name for name in tile.products if data_set.products[name].optical]
    if product is not None and product not in available:
        listed = ", ".join(available) or "none"
        message = f"tile {tile.image_id} has no {product}; its optical images: {listed}; leave out product="
        raise UserError(message, kind="not_found", key="product", value=product)
    return product or next(iter(available), None)


def draw_overview(data_set: DataSet, tile: Tile, product: str | None, path: Path) -> None:
    """Write a picture of all images of a tile and of its footprints.

    Args:
        data_set: of the tile
        tile: tile to draw
        product: optical image to draw; None for the first that the tile has
        path: PNG to write
    """
    optical = optical_product(data_set, tile, product)
    pictures = {}
    radar = data_set.radar if data_set.radar in tile.products else None
    if radar is not None:
        bands = data_set.products[radar].bands
        decibels, valid = data_set.read(tile, radar, data_set.products[radar].numbers)
        more = [("span", span(decibels))] if len(bands) > 1 else []
        for name, band in (*zip(bands, decibels, strict=True), *more):
            low, high = contrast(band, valid)
            pictures[f"{name}, {low:.0f} to {high:.0f} dB"] = grey(band, valid)
        if set(COMPOSITE) <= set(bands):
            pictures["HH, VV, VH as red, green, blue, 10 to 60 dB"] = composite(decibels, valid, bands)
    if optical:
        pictures[optical] = read_background(data_set, tile, optical)
    background = read_background(data_set, tile, tile.products[0])  # the span, if there is a radar image
    orientation = tile.orientation if radar is not None else None
    view = TileView(background, data_set.pixel_size, heading(data_set, tile), orientation)
    save_figure(overview_figure(pictures, view, data_set.labels(tile)), path)


def draw_proposals(data_set: DataSet, tile: Tile, product: str | None, proposals: Footprints, path: Path) -> None:
    """Write a picture of the ground truth of a tile, its proposals, and their matches.

    Args:
        data_set: of the tile
        tile: tile to draw
        product: optical image to draw on; None for the span of the radar image
        proposals: footprints in pixels
        path: PNG to write
    """
    shown = (product and optical_product(data_set, tile, product)) or tile.products[0]
    orientation = tile.orientation if shown == data_set.radar else None
    picture = read_background(data_set, tile, shown)
    view = TileView(picture, data_set.pixel_size, heading(data_set, tile), orientation)
    truth = data_set.labels(tile)
    if truth is None:
        save_figure(proposals_figure(view, proposals), path)
        return
    smallest = counted_area(data_set.pixel_size)
    match = match_tile(truth.polygons, proposals.polygons, proposals.confidences, smallest)
    save_figure(tile_figure(view, truth.polygons, proposals.polygons, match), path)


def read_background(data_set: DataSet, tile: Tile, product: str) -> np.ndarray:
    """Read the span of the radar image, or the colours of an optical one, 0 to 1."""
    declared = data_set.products[product]
    return render_background(*data_set.read(tile, product, declared.numbers), declared.bands)


def heading(data_set: DataSet, tile: Tile) -> str:
    """Return the title of a tile: image id, split, what imaged it from which side, and position."""
    west, north = tile.corner
    return (
        f"{tile.image_id}\n{tile.split}, {data_set.origin(tile)}, {IMAGED_FROM[tile.orientation]}\n"
        f"upper left corner {west:.1f} E, {north:.1f} N ({tile.crs or data_set.crs}), north up"
    )
