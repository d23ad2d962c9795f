"""Score footprints: `python -m sn6.score truth=... proposals=...`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sn6.cli import run_command
from sn6.datasets.layout import CRS, PIXEL, SPLIT_NAMES, labels_path, test_truth_path
from sn6.errors import UserError, counted
from sn6.files import write_text
from sn6.footprints.ground import TileGrid
from sn6.formats.evaluation import EvaluatedPolygons, all_tiles, check_tiles, match_tiles, tile_notes
from sn6.formats.files import read_proposals, read_truth
from sn6.formats.outlines import Outlines
from sn6.metrics.breakdown import Rates
from sn6.metrics.scorecard import scorecard
from sn6.progress import track

if TYPE_CHECKING:
    from sn6.datasets.archive import Archive, Tile

SAR = "SAR-Intensity"
LOOK_DIRECTIONS = {0: "north", 1: "south", None: None}  # side that the tile was imaged from
HEADINGS = {
    "by_area": "by area",
    "by_height": "by height",
    "by_nodata_distance": "by distance to nodata",
    "by_look_direction": "by look direction (from)",
}
COLUMNS = {  # key in score.json → format
    "buildings": "d",
    "matched": "d",
    "recall": ".3f",
    "proposals": "d",
    "tp": "d",
    "precision": ".3f",
    "f1": ".3f",
}


def score(
    truth: Annotated[Path, "ground truth: CSV, GeoJSON or GeoParquet, or the folder of an archive for its labels"],
    proposals: Annotated[Path, "CSV, GeoJSON or GeoParquet"],
    root: Annotated[Path | None, "archive with the look direction, strip, nodata and position of the tiles"] = None,
    out: Annotated[Path, "JSON file to write"] = Path("outputs/score.json"),
    strict: Annotated[bool, "score exactly as the organisers' program does, see above"] = False,
    resamples: Annotated[PositiveInt, "number of bootstrap resamples"] = 2000,
    block_size: Annotated[PositiveFloat, "edge length in m of the spatial blocks that the bootstrap resamples"] = 450.0,
) -> None:
    """Score proposals against the ground truth: F1 over all tiles, its 95% interval, and its breakdowns.

    Buildings and proposals smaller than 80 px² (20 m²) do not count. In each tile, in order of decreasing confidence,
    a proposal is matched with the unmatched building of the highest IoU, which must be above 0.5. The counts are summed
    over the tiles. On a tile that the ground truth lacks each proposal is a false positive.

    The organisers' program silently ignores or mismeasures some polygons: it skips tiles without a row in the
    proposals, reads only the first part of a MULTIPOLYGON, and takes the area of a self-intersecting ring by the
    shoelace formula, which can give 0. By default the buildings of such tiles are false negatives, every part counts,
    and such a ring has the area that it encloses; a note reports each case. strict=true does the same as the
    organisers' program.

    Breakdowns: recall by area, height and distance to nodata of the building; precision by area and distance of the
    proposal; F1 by look direction and strip. The interval needs the positions of the tiles, from root=... or from a
    GeoJSON or GeoParquet of sn6: a CSV does not contain them.

    Raises:
        UserError: invalid input
    """
    archive, tiles = open_archive(root or (truth if truth.is_dir() else None))
    grid = None
    if archive is not None:
        grid = TileGrid({image_id: (tile.bounds[0], tile.bounds[3]) for image_id, tile in tiles.items()}, CRS, PIXEL)

    def read_valid(image_id: str) -> np.ndarray | None:
        return archive.read(tiles[image_id], SAR, (1,))[1] if archive is not None and image_id in tiles else None

    proposed = EvaluatedPolygons(proposals, read_proposals(proposals, grid), strict)
    path, outlines = find_labels(truth, proposed.outlines) if truth.is_dir() else (truth, read_truth(truth, grid))
    true = EvaluatedPolygons(path, outlines, strict)
    check_tiles(true, proposed)
    corners = {name: corner for side in (true, proposed) for name, corner in side.outlines.tiles.items() if corner}
    matching = match_tiles(true, proposed, corners | dict(grid.corners if grid else {}), read_valid, PIXEL)
    tiles_to_match = len(all_tiles(true, proposed))
    scored = [*track(matching, f"matching {counted(tiles_to_match, 'tile')}", tiles_to_match)]
    look_directions = {image_id: LOOK_DIRECTIONS[tile.orientation] for image_id, tile in tiles.items()}
    strips = {image_id: tile.strip for image_id, tile in tiles.items()}
    card = scorecard(scored, strips, look_directions, block_size, resamples)
    notes = [*tile_notes(true, proposed), *true.notes(), *proposed.notes()]
    if card["interval"] is None:
        notes.append("no interval: needs the positions of all tiles (root=, GeoJSON or GeoParquet) in 2 or more blocks")
    write_text(out, json.dumps({"strict": strict, "tiles": len(scored), **card, "notes": notes}, indent=2) + "\n")
    report(card, notes)
    print(f"scored {counted(len(scored), 'tile')}; details in {out}")


def open_archive(root: Path | None) -> tuple["Archive | None", dict[str, "Tile"]]:
    """Open an archive; return it with its SAR tiles by image id."""
    if root is None:
        return None, {}
    from sn6.datasets.archive import Archive  # imports rasterio, which takes longer than a small score

    archive = Archive(root)
    splits = [split for split in SPLIT_NAMES if archive.has_product(split, SAR)]
    return archive, {tile.image_id: tile for split in splits for tile in archive.tiles(split, SAR)}


def find_labels(root: Path, proposed: Outlines) -> tuple[Path, Outlines]:
    """Return the labels of an archive, training or test, that name most of the proposals' tiles, with their path.

    Raises:
        UserError: the archive has no labels, or they cannot be read
    """
    labels = {path: read_truth(path) for path in (labels_path(root), test_truth_path(root)) if path.exists()}
    if not labels:
        raise UserError(
            f"{root} has no labels: {labels_path(root)} is missing; set truth= to a file of labels",
            kind="not_found",
            key="truth",
            value=root,
        )
    return max(labels.items(), key=lambda item: len(item[1].tiles.keys() & proposed.tiles.keys()))


def report(card: dict[str, Any], notes: list[str]) -> None:
    """Print the notes, the score as a table, and the interval."""
    for note in notes:
        print(f"note: {note}")
    Console().print(score_table(card))
    if card["interval"]:
        low, high = card["interval"]["f1"]
        level, blocks = card["interval"]["level"], card["interval"]["spatial_blocks"]
        print(f"{level:.0%} interval of F1: {low:.3f} to {high:.3f}, from {blocks} spatial blocks")


def score_table(card: dict[str, Any]) -> Table:
    """Build the table for the terminal; without the strips, which may be hundreds."""
    caption = "buildings by their own area, height and distance; proposals by theirs"
    table = Table(title="polygon F1", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("", "buildings", "matched", "recall", "proposals", "TP", "precision", "F1"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_row("all tiles", *cells(card["overall"]), style="bold")
    for group, heading in HEADINGS.items():
        if card[group]:
            table.add_section()
            table.add_row(heading, style="italic")
        for name, figures in card[group].items():
            if figures.get("buildings", 1) or figures.get("proposals"):
                table.add_row(f"  {name}", *cells(figures))
    return table


def cells(figures: Rates) -> list[str]:
    """Format the COLUMNS of a row; those that do not apply are empty."""
    if "fn" in figures:
        tp, fp, fn = figures["tp"], figures["fp"], figures["fn"]
        figures = figures | {"buildings": tp + fn, "matched": tp, "proposals": tp + fp}
    return [format(figures[key], style) if key in figures else "" for key, style in COLUMNS.items()]


if __name__ == "__main__":
    run_command(score, "sn6.score")
