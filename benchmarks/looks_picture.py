"""Draw one place as it is seen from the north, from the south, and fused, with the footprints of each.

    python -m benchmarks.looks_picture            (--help lists its keys)

The predictions are made by `python -m sn6.predict checkpoint=RUN root=ARCHIVE`, with revisits=true and without.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import shapely
from matplotlib.figure import Figure
from pydantic import PositiveFloat

from sn6.cli import run_command
from sn6.datasets.declaration import Split, Tile
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.footprints.ground import to_ground
from sn6.formats.challenge_csv import read_proposals
from sn6.plots.rendering import render_background
from sn6.plots.tiles import outline, save_figure

PRODUCT = "SAR-Intensity"
SPLIT: Split = "test_public"


def looks_picture(
    root: Annotated[Path, "the archive"],
    plain: Annotated[Path, "prediction of its public test tiles"],
    fused: Annotated[Path, "the same with revisits=true"],
    out: Annotated[Path, "picture to write"] = Path("outputs/looks.png"),
    width: Annotated[PositiveFloat, "m, edge length of the place"] = 200.0,
) -> None:
    """Choose the place with the most buildings that both sides see, and draw it.

    Raises:
        UserError: no place is seen from both sides, or a file cannot be read
    """
    archive = SpaceNet6(root)
    tiles = archive.tiles(SPLIT, PRODUCT)
    north, south, box = choose_place(archive, tiles, width)
    alone, together = (read_proposals(folder / "proposals.csv") for folder in (plain, fused))
    save_figure(draw(archive, (north, south), box, alone, together), out)
    print(out)


def choose_place(archive: SpaceNet6, tiles: list[Tile], width: float) -> tuple[Tile, Tile, shapely.Polygon]:
    """Return a tile from the north, one from the south, and the square in both with the most buildings."""
    best: tuple[int, Tile, Tile, shapely.Polygon] | None = None
    sides = [[tile for tile in tiles if tile.orientation == side] for side in (0, 1)]
    for one in sides[0]:
        centroids = shapely.centroid(buildings(archive, one))
        for other in sides[1]:
            common = shapely.intersection(shapely.box(*one.bounds), shapely.box(*other.bounds))
            west, south, east, north = shapely.bounds(common)
            if common.is_empty or min(east - west, north - south) < width:
                continue
            middle = shapely.centroid(common)
            square = shapely.box(*(np.array([middle.x, middle.y] * 2) + np.array([-1, -1, 1, 1]) * width / 2))
            number = int(shapely.within(centroids, square).sum())
            if best is None or number > best[0]:
                best = number, one, other, square
    if best is None:
        raise UserError(
            f"no place of {width:g} m in {archive.root} is seen from both sides; give a smaller width=",
            kind="not_found",
            key="width",
            value=width,
        )
    return best[1:]


def buildings(archive: SpaceNet6, tile: Tile) -> np.ndarray:
    """Return the label polygons of a tile on the ground."""
    labels = archive.labels(tile)
    polygons = np.empty(0, dtype=object) if labels is None else labels.polygons
    return to_ground(polygons, tile.corner, archive.pixel_size)


def draw(
    archive: SpaceNet6,
    seen: tuple[Tile, Tile],
    box: shapely.Polygon,
    alone: Mapping[str, Footprints],
    together: Mapping[str, Footprints],
) -> Figure:
    """Draw a panel for each side with its own footprints, and one with those of all looks over the first side."""
    figure = Figure(figsize=(18, 6.6), layout="constrained")
    panels = zip(
        figure.subplots(1, 3),
        ("from the north", "from the south", "all looks fused"),
        (*seen, seen[0]),
        (alone, alone, together),
        strict=True,
    )
    west, south, east, north = box.bounds
    for axes, title, tile, footprints in panels:
        pixels, valid = archive.read(tile, PRODUCT, (1, 2, 3, 4))
        picture = render_background(pixels, valid, archive.product(PRODUCT, "product").bands)
        left, bottom, right, top = tile.bounds
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(left, right, bottom, top), interpolation="nearest")
        found = to_ground(footprints[tile.image_id].polygons, tile.corner, archive.pixel_size)
        axes.add_collection(outline(buildings(archive, tile), facecolors="none", edgecolors="lime", linewidths=1.0))
        axes.add_collection(outline(found, facecolors="none", edgecolors="magenta", linewidths=1.6))
        axes.set_xlim(west, east)
        axes.set_ylim(south, north)
        axes.set_axis_off()
        axes.set_title(title)
    figure.suptitle("ground truth (green) and footprints (magenta)")
    return figure


if __name__ == "__main__":
    run_command(looks_picture, "benchmarks.looks_picture")
