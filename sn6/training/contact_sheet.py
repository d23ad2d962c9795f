"""The contact sheet of a run: test tiles from the best F1 to the worst, with what was found and missed."""

from pathlib import Path

from lightning import Trainer
from matplotlib.figure import Figure

from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.callbacks.run_progress import count_scored
from sn6.data.datamodule import TileDataModule
from sn6.formats.challenge_csv import read_proposals
from sn6.metrics.matching import Counts, counted_area, match_tile
from sn6.metrics.tile_table import COLUMNS, UNSEEN
from sn6.plots.contact_sheet import Panel, contact_sheet
from sn6.plots.rendering import render_background
from sn6.plots.tile_selection import evenly_spaced, number_of
from sn6.simulation.archive import is_simulated

CONTACT_SHEET = "figures/test_contact_sheet.png"
TILES = 6


def draw_contact_sheet(name: str, trainer: Trainer, datamodule: TileDataModule) -> Figure:
    """Draw test tiles of a run, after its `proposals.csv` is written.

    Args:
        name: of the run
        trainer: after the test
        datamodule: of the training
    """
    polygon_f1, tiles = polygon_f1_of(trainer), datamodule.test_tiles
    counts = {
        index: Counts(*(int(row[COLUMNS.index(key)]) for key in ("tp", "fp", "fn")))
        for index, row in enumerate(polygon_f1.by_tile.tolist())
        if row[0] != UNSEEN
    }
    drawn = spread_by_f1(counts, TILES)
    proposals = read_proposals(Path(trainer.default_root_dir) / "proposals.csv")
    panels = []
    for index in drawn:
        tile, source, truth = tiles.tiles[index], tiles.source, tiles.labels(index).polygons
        proposed = proposals[tile.image_id]
        match = match_tile(truth, proposed.polygons, proposed.confidences, counted_area(source.product.grid))
        image, valid = datamodule.data_set.read(tile, source.product.name, source.bands)
        picture = render_background(image, valid, source.band_names)
        name_of_tile, pixel_size = f"tile {number_of(tile.image_id)}", source.product.grid
        panels.append(Panel(name_of_tile, picture, pixel_size, truth, proposed.polygons, match))
    points = " or ".join(sorted({str(polygon_f1.polygonizer_of(index)) for index in counts}))
    data = " (simulated data)" if is_simulated(datamodule.data_set.root) else ""
    title = (
        f"{name}: polygon F1 {polygon_f1.scores['f1']:.3f} on {count_scored(len(counts), datamodule.scored_on)}{data}\n"
        f"{points}; tiles from the best F1 to the worst"
    )
    return contact_sheet(panels, title)


def spread_by_f1(counts: dict[int, Counts], number: int) -> list[int]:
    """Return `number` tiles from the best F1 to the worst, then by fewest errors; empty ones where there are no others.

    Args:
        counts: tile → its counts
        number: of tiles
    """
    with_buildings = [index for index, one in counts.items() if one != Counts()] or list(counts)

    def rank(index: int) -> tuple[float, int, int]:
        return -counts[index].f1, counts[index].fp + counts[index].fn, index

    return evenly_spaced(sorted(with_buildings, key=rank), number)
