"""Draw the folds of a partition on the ground: training, validation, dropped and test tiles."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sn6.data.folds import Fold, bounds_of
from sn6.data.partitions import PARTITIONS, PartitionName
from sn6.datasets.declaration import Tile
from sn6.plots.tiles import LAYOUT, hide_frame

TRAIN, VALIDATION, DROPPED, TEST = "#0d86ff", "#ffb000", "#d4145a", "#707070"
MAPS_PER_ROW = 5
WIDTH = 3.2  # inches of a map
KILOMETRE = 1000.0


def partition_figure(partition: PartitionName, folds: Mapping[int, Fold], crs: str) -> Figure:
    """Draw a map for each fold; where tiles overlap, the colour is deeper.

    Args:
        partition: partition of the folds
        folds: number of the validation part → fold
        crs: of the tiles
    """
    columns = min(len(folds), MAPS_PER_ROW)
    rows = -(-len(folds) // columns)
    figure = Figure(figsize=figure_size(folds, columns, rows), layout=LAYOUT)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (number, fold) in zip(axes.flat, folds.items(), strict=False):
        draw_fold(axis, fold, f"{PARTITIONS[partition].noun} {number}")
    for axis in axes.flat[len(folds) :]:
        hide_frame(axis)
    for axis in axes[-1]:
        axis.set_xlabel("easting, km")
    for axis in axes[:, 0]:
        axis.set_ylabel("northing, km")
    train = np.mean([len(fold.train) for fold in folds.values()])
    dropped = np.mean([len(fold.dropped) for fold in folds.values()])
    figure.suptitle(f"data.partition={partition}\nmean of the folds: {train:.0f} train, {dropped:.0f} dropped ({crs})")
    uses = {TRAIN: "train", VALIDATION: "validation", DROPPED: "dropped"}
    if any(test_tiles(fold) for fold in folds.values()):
        uses[TEST] = "test"
    patches = [Patch(color=colour, label=use) for colour, use in uses.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    return figure


def figure_size(folds: Mapping[int, Fold], columns: int, rows: int) -> tuple[float, float]:
    """Return the size in inches of a figure whose maps have the aspect ratio of the archive."""
    bounds = bounds_of([tile for fold in folds.values() for part in (fold.train, fold.test) for tile in part])
    width, height = bounds[:, 2:].max(axis=0) - bounds[:, :2].min(axis=0)
    map_height = WIDTH * min(max(height / width, 0.4), 2.5) + 0.7
    return max(WIDTH * columns + 1.0, 6.0), map_height * rows + 1.2  # narrower figures cut title and legend


def test_tiles(fold: Fold) -> list[Tile]:
    """Return the tiles of the split "test_public"; the other test tiles of a fold are drawn as what else they are."""
    return [tile for tile in fold.test if tile.split == "test_public"]


def draw_fold(axis: Axes, fold: Fold, title: str) -> None:
    """Draw the squares of a fold's tiles on the ground, in kilometres."""
    parts = ((fold.train, TRAIN), (fold.dropped, DROPPED), (fold.validation, VALIDATION), (test_tiles(fold), TEST))
    for tiles, colour in parts:
        axis.add_collection(squares(tiles, colour))
    axis.autoscale_view()
    axis.set_aspect("equal")
    axis.ticklabel_format(useOffset=False)
    axis.locator_params(nbins=4)  # more numbers of this length overlap
    axis.tick_params(labelsize="small")
    counts = f"{len(fold.train)} train,\n{len(fold.validation)} validation, {len(fold.dropped)} dropped"
    axis.set_title(f"{title}: {counts}", fontsize=10)


def squares(tiles: Sequence[Tile], colour: str) -> PolyCollection:
    """Return the tiles as translucent squares."""
    west, south, east, north = bounds_of(tiles).T / KILOMETRE
    corners = np.stack([[west, south], [east, south], [east, north], [west, north]]).transpose(2, 0, 1)  # (n, 4, 2)
    return PolyCollection(list(corners), facecolors=colour + "30", edgecolors=colour + "80", linewidths=0.3)
