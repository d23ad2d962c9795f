"""A split on the ground: which tiles train, validate and are dropped in each of its folds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sn6.data.folds import Fold, bounds_of
from sn6.data.partitions import PARTITIONS, PartitionName
from sn6.datasets.archive import Tile
from sn6.datasets.layout import CRS
from sn6.plots.tiles import LAYOUT

TRAIN, VALIDATION, DROPPED, TEST = "#0d86ff", "#ffb000", "#d4145a", "#707070"
PER_ROW = 5
WIDTH = 3.2  # inches of a map
KILOMETRE = 1000.0


def split_figure(split: PartitionName, folds: Mapping[int, Fold]) -> Figure:
    """A map for each fold; where tiles lie over each other, the colour is deeper.

    Args:
        split: of the folds
        folds: by the number of the part that validates
    """
    columns = min(len(folds), PER_ROW)
    rows = -(-len(folds) // columns)
    bounds = bounds_of([tile for fold in folds.values() for part in (fold.train, fold.test) for tile in part])
    wide, high = bounds[:, 2:].max(axis=0) - bounds[:, :2].min(axis=0)
    height = WIDTH * min(max(high / wide, 0.4), 2.5) + 0.7
    figure = Figure(figsize=(WIDTH * columns + 1.0, height * rows + 1.0), layout=LAYOUT)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (number, fold) in zip(axes.flat, folds.items(), strict=False):
        draw_fold(axis, fold, f"{PARTITIONS[split].noun} {number}")
    for axis in axes.flat[len(folds) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("easting, km")
    for axis in axes[:, 0]:
        axis.set_ylabel("northing, km")
    kept = np.mean([len(fold.train) for fold in folds.values()])
    lost = np.mean([len(fold.dropped) for fold in folds.values()])
    told = f"data.split={split}: {kept:.0f} tiles train and {lost:.0f} are dropped in a fold on average ({CRS})"
    figure.suptitle(told)
    uses = {TRAIN: "trains", VALIDATION: "validates", DROPPED: "dropped"}
    if any(tile.split == "test_public" for fold in folds.values() for tile in fold.test):
        uses[TEST] = "tests"
    patches = [Patch(color=colour, label=use) for colour, use in uses.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    return figure


def draw_fold(axis: Axes, fold: Fold, title: str) -> None:
    """The squares of a fold's tiles on the ground, in kilometres."""
    test = [tile for tile in fold.test if tile.split == "test_public"]
    for tiles, colour in ((fold.train, TRAIN), (fold.dropped, DROPPED), (fold.validation, VALIDATION), (test, TEST)):
        axis.add_collection(squares(tiles, colour))
    axis.autoscale_view()
    axis.set_aspect("equal")
    axis.ticklabel_format(useOffset=False)
    axis.tick_params(labelsize="small")
    axis.set_title(
        f"{title}: {len(fold.train)} train,\n{len(fold.validation)} validate, {len(fold.dropped)} dropped", fontsize=10
    )


def squares(tiles: Sequence[Tile], colour: str) -> PolyCollection:
    """Tiles as filled squares that show through."""
    west, south, east, north = bounds_of(tiles).T / KILOMETRE
    corners = np.stack([[west, south], [east, south], [east, north], [west, north]]).transpose(2, 0, 1)  # (n, 4, 2)
    return PolyCollection(list(corners), facecolors=colour + "30", edgecolors=colour + "80", linewidths=0.3)
