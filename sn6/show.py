"""`python -m sn6.show root=...`: pictures of tiles, of their footprints, and of what was proposed for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sn6.cli import run_command
from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import PRODUCTS, SPLIT_NAMES, Split
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.formats.files import read_proposals
from sn6.formats.outlines import parts
from sn6.metrics.matching import make_valid, match_tile
from sn6.plots.tile_selection import CHOICES, choose_by_buildings, choose_by_f1, find_tile, named_by

SAR = "SAR-Intensity"
IMAGED_FROM = {0: "imaged from the north", 1: "imaged from the south", None: "orientation not known"}
Proposed = Mapping[str, Footprints]


def show(
    root: Annotated[Path, "folder of the archive"],
    tile: Annotated[
        int | str | list[int | str],
        "image id or number, or [several]; or a choice: even, or worst or best by F1 of the proposals",
    ] = "even",
    tiles: Annotated[int, "how many to choose where tile= names none"] = 4,
    split: Annotated[Split | None, "train or test_public; null: where the tile is, or most of the proposals"] = None,
    product: Annotated[
        Literal["PS-RGB", "PS-RGBNIR", "RGBNIR", "PAN"] | None,
        "optical image to show; null: the first there is. Proposals are drawn on it, and else on the span",
    ] = None,
    proposals: Annotated[Path | None, "CSV, GeoJSON or GeoParquet of proposals, to be shown beside the truth"] = None,
    out: Annotated[Path, "folder for a PNG of each tile, or a .png for one tile"] = Path("outputs/show"),
) -> None:
    """Draws tiles of an archive, each to a PNG; no display is needed.

    A tile: the four polarisations in grey, the span, the composite (HH, VV, VH as red, green, blue over 10 to 60 dB),
    the optical image, and the footprints by height. With proposals=: the truth, the proposals, and where they agree.
    Without tile= it says what there is, and shows a few tiles evenly from many buildings to few or, with proposals,
    from the best F1 to the worst. Tiles stand in their own frame, north up.

    Raises:
        UserError: no such tile or product, proposals that do not name the tile, an `out` that does not do
    """
    check_out(out)
    archive = Archive(root)
    proposed = None
    if proposals is not None:
        found = ((image_id, parts(rows)) for image_id, rows in read_proposals(proposals, {}).by_tile())
        proposed = {image_id: Footprints(make_valid(polygons), values) for image_id, (polygons, values) in found}
    if isinstance(tile, str) and tile in CHOICES:
        chosen = choose(archive, tile, tiles, split, product, proposed)
    else:
        chosen = [find_tile(archive, name, split) for name in (tile if isinstance(tile, list) else [tile])]
    check_chosen(chosen, product, proposed, out)
    for one in track(chosen, "drawing", console=Console(stderr=True), transient=True):
        name = f"{one.image_id}.png" if proposed is None else f"{one.image_id}_proposals.png"
        path = out if out.suffix.lower() == ".png" else out / name
        if proposed is None:
            draw_overview(archive, one, product, path)
        else:
            draw_proposals(archive, one, product, proposed[one.image_id], path)
        print(path)


def check_out(out: Path) -> None:
    """Raises a UserError for what is neither a PNG nor a folder."""
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise UserError(f"out={out} is a folder with the name of a picture; choose another name")
    elif (out.suffix and not out.is_dir()) or out.is_file():
        raise UserError(f"out={out} is neither a PNG nor a folder; let it end in .png, or give a folder")


def choose(
    archive: Archive, choice: str, number: int, split: Split | None, product: str | None, proposed: Proposed | None
) -> list[Tile]:
    """The tiles of a choice; without proposals it says first what there is.

    Raises:
        UserError: a choice that needs proposals or truth that there are not
    """
    if number < 1:
        raise UserError(f"tiles={number} does not do; give 1 or more")
    if proposed is None:
        if choice != "even":
            raise UserError(f"tile={choice} is by F1; give proposals= too, or tile=even")
        print_archive(archive)
        return choose_by_buildings(archive, archive.tiles(split or "train", product or SAR), number)
    most = max(SPLIT_NAMES, key=lambda one: len(archive.products(one).keys() & proposed.keys()))
    return choose_by_f1(archive, archive.tiles(split or most, product or SAR), proposed, choice, number)


def print_archive(archive: Archive) -> None:
    """What there is, by the names of the files alone."""
    table = Table(title=str(archive.root), title_justify="left")
    for column in ("split", "tiles", "strips", "images"):
        table.add_column(column)
    for split in SPLIT_NAMES:
        products = archive.products(split)
        flags = [
            archive.orientations.get(strip) for strip in {image_id.rpartition("_tile_")[0] for image_id in products}
        ]
        strips = f"{len(flags)}\n{flags.count(0)} imaged from the north\n{flags.count(1)} from the south"
        images = [f"{name} {count}" for name in PRODUCTS if (count := sum(name in have for have in products.values()))]
        table.add_row(split, str(len(products)), strips, "\n".join(images))
    Console().print(table)


def check_chosen(chosen: list[Tile], product: str | None, proposed: Proposed | None, out: Path) -> None:
    """Raises a UserError, before anything is drawn, for tiles that cannot be drawn so."""
    if not chosen:
        raise UserError("tile=[] names no tile; leave it out for a few")
    if out.suffix.lower() == ".png" and len(chosen) > 1:
        raise UserError(f"out={out} is one picture for {len(chosen)} tiles; give a folder")
    for tile in chosen:
        optical_of(tile, product)
        if proposed is not None and tile.image_id not in proposed:
            raise UserError(
                f"the proposals do not name the tile {tile.image_id} but {named_by(proposed)};"
                " a tile without proposals has a row with POLYGON EMPTY"
            )


def optical_of(tile: Tile, product: str | None) -> str | None:
    """The optical image to show: the product that is asked for, or the first there is.

    Raises:
        UserError: the tile has not what is asked for
    """
    there = [name for name in tile.products if PRODUCTS[name].optical]
    if product is not None and product not in there:
        listed = ", ".join(there) or "no optical image"
        raise UserError(f"the tile {tile.image_id} has no {product}, but {listed}; leave product= out")
    return product or next(iter(there), None)


def draw_overview(archive: Archive, tile: Tile, product: str | None, path: Path) -> None:
    """Writes the picture of all that there is of a tile."""
    from sn6.plots.rendering import SAR_BANDS, composite, contrast, grey, span
    from sn6.plots.tiles import overview_figure, save_figure

    optical = optical_of(tile, product)
    pictures = {}
    if SAR in tile.products:
        decibels, valid = archive.read(tile, SAR, range(1, 5))
        for name, band in (*zip(SAR_BANDS, decibels, strict=True), ("span", span(decibels))):
            low, high = contrast(band, valid)
            pictures[f"{name}, {low:.0f} to {high:.0f} dB"] = grey(band, valid)
        pictures["HH, VV, VH as red, green, blue, 10 to 60 dB"] = composite(decibels, valid)
    if optical:
        pictures[optical] = read_backdrop(archive, tile, optical)
    under = read_backdrop(archive, tile, tile.products[0])  # the span, where there is a radar image
    orientation = tile.orientation if SAR in tile.products else None
    save_figure(overview_figure(pictures, under, archive.labels(tile), heading(tile), orientation), path)


def draw_proposals(archive: Archive, tile: Tile, product: str | None, proposed: Footprints, path: Path) -> None:
    """Writes the picture of the truth of a tile, its proposals, and where they agree."""
    from sn6.plots.tiles import proposals_figure, save_figure, tile_figure

    shown = (product and optical_of(tile, product)) or tile.products[0]
    picture = read_backdrop(archive, tile, shown)
    orientation = tile.orientation if shown == SAR else None
    truth = archive.labels(tile)
    if truth is None:
        save_figure(proposals_figure(picture, proposed, heading(tile), orientation), path)
        return
    match = match_tile(truth.polygons, proposed.polygons, proposed.confidences)
    save_figure(tile_figure(picture, truth.polygons, proposed.polygons, match, heading(tile), orientation), path)


def read_backdrop(archive: Archive, tile: Tile, product: str) -> np.ndarray:
    """The span of the radar image or the colours of an optical one, 0 to 1."""
    from sn6.plots.rendering import render_background

    bands = PRODUCTS[product].bands
    return render_background(*archive.read(tile, product, range(1, len(bands) + 1)), bands)


def heading(tile: Tile) -> str:
    """Which tile it is, when and whence the radar saw it, and where it lies."""
    day, start, end = tile.strip[:8], tile.strip[8:14], tile.strip[-6:]
    when = f"{day[:4]}-{day[4:6]}-{day[6:]} {start[:2]}:{start[2:4]}:{start[4:]} to {end[:2]}:{end[2:4]}:{end[4:]} UTC"
    west, _, _, north = tile.bounds
    return (
        f"{tile.image_id}\n{tile.split}, strip {when}, {IMAGED_FROM[tile.orientation]}\n"
        f"upper left corner {west:.1f} E, {north:.1f} N (EPSG:32631), north up"
    )


if __name__ == "__main__":
    run_command(show, "sn6.show")
