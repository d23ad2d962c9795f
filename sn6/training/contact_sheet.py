"""The contact sheet of a run: the best, median and worst test tiles by F1, with what was found and missed."""

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
from sn6.plots.tile_selection import number_of
from sn6.simulation.archive import is_simulated

CONTACT_SHEET = "figures/test_contact_sheet.png"
ROWS = 2  # of a best, a median and a worst tile


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
    proposals = read_proposals(Path(trainer.default_root_dir) / "proposals.csv")
    panels = []
    for rank, index in best_median_worst(counts, ROWS):
        tile, source, truth = tiles.tiles[index], tiles.source, tiles.labels(index).polygons
        proposed = proposals[tile.image_id]
        match = match_tile(truth, proposed.polygons, proposed.confidences, counted_area(source.product.grid))
        image, valid = datamodule.data_set.read(tile, source.product.name, source.bands)
        picture = render_background(image, valid, source.band_names)
        heading, pixel_size = f"{rank}: tile {number_of(tile.image_id)}", source.product.grid
        orientation = tile.orientation if source.product.sensor == "radar" else None
        panels.append(Panel(heading, picture, pixel_size, truth, proposed.polygons, match, orientation))
    points = " or ".join(sorted({str(polygon_f1.polygonizer_of(index)) for index in counts}))
    data = " (simulated data)" if is_simulated(datamodule.data_set.root) else ""
    title = (
        f"{name}: polygon F1 {polygon_f1.scores['f1']:.3f} on {count_scored(len(counts), datamodule.scored_on)}{data}\n"
        f"{points}; best, median and worst tiles by F1"
    )
    return contact_sheet(panels, title)


def best_median_worst(counts: dict[int, Counts], rows: int) -> list[tuple[str, int]]:
    """Return `rows` times a best, a median and a worst tile; fewer where there are fewer tiles, each of them once.

    Tiles are ranked by F1, then by fewest errors; those without buildings and proposals only where there are no others.

    Args:
        counts: tile → its counts
        rows: number of tiles of each rank
    """
    with_buildings = [index for index, one in counts.items() if one != Counts()] or list(counts)

    def rank(index: int) -> tuple[float, int, int]:
        return -counts[index].f1, counts[index].fp + counts[index].fn, index

    ordered = sorted(with_buildings, key=rank)
    if len(ordered) < 3 * rows:
        rows = max(len(ordered) // 3, 1)
    start = (len(ordered) - rows) // 2
    median = ordered[start : start + rows] if len(ordered) > 2 else []
    columns = {"best": ordered[:rows], "median": median, "worst": ordered[max(len(ordered) - rows, 1) :]}
    return [(name, tiles[row]) for row in range(rows) for name, tiles in columns.items() if row < len(tiles)]
