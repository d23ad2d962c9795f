"""Draw the tiles of an archive to PNG files: their images, their footprints, and proposals for them."""

from pathlib import Path

import numpy as np

from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import CRS, PRODUCTS
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.metrics.matching import match_tile
from sn6.plots.proposals import proposals_figure, tile_figure
from sn6.plots.rendering import SAR_BANDS, composite, contrast, grey, render_background, span
from sn6.plots.tiles import overview_figure, save_figure

SAR = "SAR-Intensity"
IMAGED_FROM = {0: "imaged from the north", 1: "imaged from the south", None: "look direction unknown"}


def optical_product(tile: Tile, product: str | None) -> str | None:
    """Return the optical image to draw: `product`, or the first that the tile has.

    Raises:
        UserError: the tile does not have `product`
    """
    available = [name for name in tile.products if PRODUCTS[name].optical]
    if product is not None and product not in available:
        listed = ", ".join(available) or "none"
        message = f"tile {tile.image_id} has no {product}; its optical images: {listed}; leave out product="
        raise UserError(message, kind="not_found", key="product", value=product)
    return product or next(iter(available), None)


def draw_overview(archive: Archive, tile: Tile, product: str | None, path: Path) -> None:
    """Write a picture of all images of a tile and of its footprints.

    Args:
        archive: archive of the tile
        tile: tile to draw
        product: optical image to draw; None for the first that the tile has
        path: PNG to write
    """
    optical = optical_product(tile, product)
    pictures = {}
    if SAR in tile.products:
        decibels, valid = archive.read(tile, SAR, range(1, 5))
        for name, band in (*zip(SAR_BANDS, decibels, strict=True), ("span", span(decibels))):
            low, high = contrast(band, valid)
            pictures[f"{name}, {low:.0f} to {high:.0f} dB"] = grey(band, valid)
        pictures["HH, VV, VH as red, green, blue, 10 to 60 dB"] = composite(decibels, valid)
    if optical:
        pictures[optical] = read_background(archive, tile, optical)
    background = read_background(archive, tile, tile.products[0])  # the span, if there is a radar image
    orientation = tile.orientation if SAR in tile.products else None
    save_figure(overview_figure(pictures, background, archive.labels(tile), heading(tile), orientation), path)


def draw_proposals(archive: Archive, tile: Tile, product: str | None, proposals: Footprints, path: Path) -> None:
    """Write a picture of the ground truth of a tile, its proposals, and their matches.

    Args:
        archive: archive of the tile
        tile: tile to draw
        product: optical image to draw on; None for the span of the radar image
        proposals: footprints in pixels
        path: PNG to write
    """
    shown = (product and optical_product(tile, product)) or tile.products[0]
    picture = read_background(archive, tile, shown)
    orientation = tile.orientation if shown == SAR else None
    truth = archive.labels(tile)
    if truth is None:
        save_figure(proposals_figure(picture, proposals, heading(tile), orientation), path)
        return
    match = match_tile(truth.polygons, proposals.polygons, proposals.confidences)
    save_figure(tile_figure(picture, truth.polygons, proposals.polygons, match, heading(tile), orientation), path)


def read_background(archive: Archive, tile: Tile, product: str) -> np.ndarray:
    """Read the span of the radar image, or the colours of an optical one, 0 to 1."""
    bands = PRODUCTS[product].bands
    return render_background(*archive.read(tile, product, range(1, len(bands) + 1)), bands)


def heading(tile: Tile) -> str:
    """Return the title of a tile: image id, split, time and look direction of the strip, and position."""
    day, start, end = tile.strip[:8], tile.strip[8:14], tile.strip[-6:]
    when = f"{day[:4]}-{day[4:6]}-{day[6:]} {start[:2]}:{start[2:4]}:{start[4:]} to {end[:2]}:{end[2:4]}:{end[4:]} UTC"
    west, _, _, north = tile.bounds
    return (
        f"{tile.image_id}\n{tile.split}, strip {when}, {IMAGED_FROM[tile.orientation]}\n"
        f"upper left corner {west:.1f} E, {north:.1f} N ({CRS}), north up"
    )
