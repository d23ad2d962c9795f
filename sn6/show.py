"""`python -m sn6.show root=DIR` or `images=DIR labels=FILE`: draw tiles, their footprints, and proposals for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt
from rich.console import Console
from rich.table import Table

from sn6.cli import run_command
from sn6.datasets.declaration import DataSet, Split, Tile
from sn6.errors import UserError, counted
from sn6.footprints import Footprints
from sn6.plots.tile_selection import CRITERIA, choose_by_buildings, choose_by_f1, find_tile, summarise_tiles
from sn6.progress import track
from sn6.training.data_source import DataSource

Proposals = Mapping[str, Footprints]  # image id → footprints in pixels


def show(
    source: DataSource,
    tile: Annotated[
        str | list[str], "image id or number, or a list [..] of them; or even, or worst or best by F1 of the proposals"
    ] = "even",
    tiles: Annotated[PositiveInt, "number of tiles for tile=even, worst or best"] = 4,
    split: Annotated[Split | None, "train or test_public; null: that of the tile, or of most of the proposals"] = None,
    product: Annotated[
        str | None,
        "optical image to draw, such as PS-RGB; null: the first of the tile. Proposals are drawn on it; null: on the "
        "span of the radar",
    ] = None,
    proposals: Annotated[Path | None, "CSV, GeoJSON or GeoParquet of proposals, drawn with the ground truth"] = None,
    out: Annotated[Path, "folder for a PNG of each tile, or a .png for one tile"] = Path("outputs/show"),
) -> None:
    """Draw tiles of an archive or of other images, each to a PNG; no display is needed.

    For each tile: each band of the radar in grey, the span, the composite (HH, VV, VH as red, green, blue, 10 to
    60 dB), the optical image, and the footprints coloured by height. With proposals=: the ground truth, the proposals,
    the true positives, false positives and false negatives, and each building in a colour of its own, with split
    buildings and proposals that merge buildings hatched.
    Without tile=, list the products and draw a few tiles evenly from many buildings to few or, with proposals=, from
    the best F1 to the worst. Tiles are drawn as they are on disk, north up.

    Raises:
        UserError: no such tile or product, no proposals for the tile, or an invalid `out`
    """
    check_out(out)
    data_set = source.open()
    if product is not None:
        data_set.product(product, "product")
    by_tile = None if proposals is None else read_proposals(proposals)
    if isinstance(tile, str) and tile in CRITERIA:
        selected = select_tiles(data_set, tile, tiles, split, product, by_tile)
    else:
        selected = [find_tile(data_set, name, split) for name in (tile if isinstance(tile, list) else [tile])]
    check_selection(data_set, selected, product, by_tile, out)

    from sn6.plots.archive_tiles import draw_overview, draw_proposals

    for one in track(selected, f"drawing {counted(len(selected), 'tile')}"):
        name = f"{one.image_id}.png" if by_tile is None else f"{one.image_id}_proposals.png"
        path = out if out.suffix.lower() == ".png" else out / name
        if by_tile is None:
            draw_overview(data_set, one, product, path)
        else:
            draw_proposals(data_set, one, product, by_tile[one.image_id], path)
        print(path)


def check_out(out: Path) -> None:
    """Raise a UserError if `out` is neither a PNG nor a folder."""
    is_png = out.suffix.lower() == ".png"
    if is_png and out.is_dir():
        message = f"invalid out={out}: is a folder; choose another name for the picture"
    elif not is_png and (out.is_file() or (out.suffix and not out.is_dir())):
        message = f"invalid out={out}: must be a folder or end in .png"
    else:
        return
    raise UserError(message, kind="invalid_value", key="out", value=out)


def read_proposals(path: Path) -> Proposals:
    """Read the proposals of each tile of a file, with invalid polygons repaired."""
    from sn6.formats import files
    from sn6.formats.outlines import parts
    from sn6.metrics.matching import make_valid

    by_tile = ((image_id, parts(rows)) for image_id, rows in files.read_proposals(path).by_tile())
    return {image_id: Footprints(make_valid(polygons), values) for image_id, (polygons, values) in by_tile}


def select_tiles(
    data_set: DataSet,
    criterion: str,
    number: int,
    split: Split | None,
    product: str | None,
    proposals: Proposals | None,
) -> list[Tile]:
    """Select tiles by one of CRITERIA; without proposals, print the products of the archive.

    Raises:
        UserError: a criterion that needs proposals or ground truth, which are missing
    """
    if proposals is None:
        if criterion != "even":
            message = f"tile={criterion} ranks tiles by F1; set proposals= as well, or use tile=even"
            raise UserError(message, kind="missing_value", key="proposals")
        print_products(data_set)
        return choose_by_buildings(data_set, tiles_of(data_set, split or "train", product), number)
    most = max(data_set.splits, key=lambda name: len(data_set.products_of(name).keys() & proposals.keys()))
    return choose_by_f1(data_set, tiles_of(data_set, split or most, product), proposals, criterion, number)


def tiles_of(data_set: DataSet, split: Split, product: str | None) -> list[Tile]:
    """Return the tiles of a split that have a product; by default the radar, or the first one where there is none."""
    return data_set.tiles(split, product or data_set.radar or next(iter(data_set.products)))


def print_products(data_set: DataSet) -> None:
    """Print the numbers of tiles, strips and images of each split."""
    table = Table(title=str(data_set.root), title_justify="left")
    for column in ("split", "tiles", "strips", "images"):
        table.add_column(column)
    for split in data_set.splits:
        products = data_set.products_of(split)
        strips = data_set.strips_of(split)
        directions = list(strips.values())
        counts = f"{len(strips)}\n{directions.count(0)} imaged from the north\n{directions.count(1)} from the south"
        images = {product: sum(product in names for names in products.values()) for product in data_set.products}
        listed = "\n".join(f"{product} {count}" for product, count in images.items() if count)
        table.add_row(split, str(len(products)), counts, listed)
    Console().print(table)


def check_selection(
    data_set: DataSet, tiles: list[Tile], product: str | None, proposals: Proposals | None, out: Path
) -> None:
    """Raise a UserError, before anything is drawn, if one of the tiles cannot be drawn."""
    from sn6.plots.archive_tiles import optical_product

    if not tiles:
        raise UserError(
            "invalid tile=[]: must name a tile; leave it out to draw a few", kind="invalid_value", key="tile", value=[]
        )
    if out.suffix.lower() == ".png" and len(tiles) > 1:
        message = f"invalid out={out}: {len(tiles)} tiles need a folder, not one .png"
        raise UserError(message, kind="invalid_value", key="out", value=out)
    for tile in tiles:
        optical_product(data_set, tile, product)
        if proposals is not None and tile.image_id not in proposals:
            message = (
                f"tile {tile.image_id} is not in proposals=, which has {summarise_tiles(proposals)}; "
                "a tile without proposals needs a row with POLYGON EMPTY"
            )
            raise UserError(message, kind="not_found", key="tile", value=tile.image_id)


if __name__ == "__main__":
    run_command(show, "sn6.show")
