"""Measure how many buildings each choice of heads and polygonizer gives back from the maps of the ground truth.

    python -m benchmarks.oracle            (--help lists its keys)

No network is trained: the maps are the targets of the labels, as they are, blurred, and blurred with noise, as those of
a network are. A building is found if a region has an IoU above 0.5 with it. A second table has the times of one tile.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import PositiveInt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from benchmarks.boundary import MAX_SIDE
from benchmarks.comparison import Implementation, medians, require, with_unit
from benchmarks.street_map import SIZE, terraces
from sn6.cli import run_command
from sn6.data.reader import rasterize_labels
from sn6.datasets.spacenet6 import PIXEL, SpaceNet6
from sn6.footprints.centre_offset import CentreVoting
from sn6.footprints.distance import DistanceWatershed
from sn6.footprints.polygonizer import Polygonizer
from sn6.footprints.threshold import Threshold
from sn6.footprints.watershed import SeededWatershed
from sn6.metrics.label_matching import match_labels
from sn6.metrics.matching import CHALLENGE_MIN_AREA, Counts
from sn6.simulation.archive import make_archive, settings_of
from sn6.targets.centre import Centre
from sn6.targets.contact import Contact
from sn6.targets.distance import Distance
from sn6.targets.edge import InnerEdge
from sn6.targets.mask import Mask
from sn6.targets.offset import Offset
from sn6.targets.rasterize import rasterize_instances
from sn6.targets.target import Target, TileLabels, tile_layers

PRODUCT = "SAR-Intensity"
SEED = 1  # of the buildings that are timed, as in benchmarks.boundary
NOISE_WIDTH = 1.0  # px: the errors of neighbouring pixels are alike
LENGTH_UNIT = 2.5  # m: noise of 0.15 shifts the outline of a mask blurred by 2 px by 0.75 px, and lengths as much
MIN_EXACT = 0.97  # F1 from exact maps


class Error(NamedTuple):
    """What makes the maps of the ground truth similar to those of a network.

    Attributes:
        blur: standard deviation of a Gaussian in px
        noise: standard deviation of the noise that is added then, in probabilities and in `LENGTH_UNIT`
    """

    blur: float
    noise: float


ERRORS = {
    "exact": Error(0, 0),
    "blurred σ 2 px": Error(2, 0),
    "σ 1 px and noise": Error(1, 0.15),
    "σ 2 px and noise": Error(2, 0.15),
}


@dataclass(frozen=True)
class Recipe:
    """Heads and a polygonizer.

    Attributes:
        targets: of the heads besides the mask, by name
        polygonizer: with its default values
        is_complete: whether exact maps should give back all buildings
        carved: whether the contact is taken from the mask, so that only what remains is flooded
    """

    targets: Mapping[str, Target]
    polygonizer: Polygonizer
    is_complete: bool = True
    carved: bool = False


WINNER = {"edge": InnerEdge(), "contact": Contact()}
RECIPES = {
    "binary components": Recipe({}, Threshold(), is_complete=False),
    "contact, radius 1 m": Recipe({"contact": Contact(1.0)}, SeededWatershed()),
    "contact, radius 1.5 m": Recipe({"contact": Contact(1.5)}, SeededWatershed()),
    "inner edge of 0.5 m": Recipe({"edge": InnerEdge(0.5)}, SeededWatershed()),
    "inner edge of 1 m": Recipe({"edge": InnerEdge(1.0)}, SeededWatershed()),
    "edge and contact": Recipe(WINNER, SeededWatershed()),
    "the same, flood only over m(1−c)": Recipe(WINNER, SeededWatershed(), is_complete=False, carved=True),
    "distance to the own border": Recipe({"distance": Distance()}, DistanceWatershed()),
    "centre and offset": Recipe({"centre": Centre(), "offset": Offset()}, CentreVoting()),
}
BUILDINGS = (60, 300)  # of the tiles that are timed
TARGET_LIMITS = {60: 0.020, 300: 0.060}  # buildings → s
WATERSHED_LIMITS = {60: 0.060, 300: 0.100}


def oracle(
    root: Annotated[Path | None, "the archive; null simulates `medium` with seed 0 in outputs/medium_archive"] = None,
    tiles: Annotated[PositiveInt, "training tiles to measure, the first ones"] = 16,
) -> None:
    """Print F1 of each choice of heads for each error, then the times of one tile on one core."""
    if root is None:
        root = Path("outputs/medium_archive")
        make_archive(root, settings_of(scale="medium", seed=0))
    counts = {(recipe, error): Counts() for recipe in RECIPES for error in ERRORS}
    buildings = 0
    for number, labels in enumerate(track(list(labels_of(root, tiles)), "tiles", console=Console(stderr=True))):
        buildings += len(large_buildings(labels)[1])
        for recipe, error in counts:
            counts[recipe, error] += count_found(RECIPES[recipe], labels, ERRORS[error], seed=number)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(
        table_of(counts, f"F1 of {buildings} buildings of at least {CHALLENGE_MIN_AREA:g} px² on {tiles} tiles")
    )
    console.print(table_of_times())
    for name, heads in RECIPES.items():
        f1 = counts[name, "exact"].f1
        require(f1 >= MIN_EXACT or not heads.is_complete, f"{name}: F1 {f1:.3f} from exact maps, below {MIN_EXACT}")


def labels_of(root: Path, tiles: int) -> Iterator[TileLabels]:
    """Yield the labels of the first training tiles of an archive."""
    archive = SpaceNet6(root)
    for tile in archive.tiles("train", PRODUCT)[:tiles]:
        _, valid = archive.read(tile, PRODUCT, [1])
        yield rasterize_labels(archive.labels(tile), valid, CHALLENGE_MIN_AREA * PIXEL**2, PIXEL)


def large_buildings(labels: TileLabels) -> tuple[np.ndarray, np.ndarray]:
    """Return the observed instances (h, w) that count, of 80 px or more, and their numbers."""
    sizes = np.bincount(labels.observed.ravel())
    sizes[0] = 0
    counted = sizes >= CHALLENGE_MIN_AREA
    return np.where(counted, np.arange(len(sizes), dtype=np.int32), 0)[labels.observed], np.flatnonzero(counted)


def count_found(recipe: Recipe, labels: TileLabels, error: Error, seed: int) -> Counts:
    """Count the buildings of a tile that a polygonizer finds in maps with errors."""
    rng = np.random.default_rng(seed)
    targets = {"mask": Mask()} | dict(recipe.targets)
    maps = {name: with_error(target.tile(labels), target, error, rng) for name, target in targets.items()}
    if recipe.carved:
        maps["mask"] = maps["mask"] * (1 - maps["contact"])
    truth, numbers = large_buildings(labels)
    proposed = recipe.polygonizer.instances(maps, labels.valid, labels.pixel_size)
    return match_labels(proposed, truth, len(numbers), [CHALLENGE_MIN_AREA])[0]


def with_error(layer: np.ndarray, target: Target, error: Error, rng: np.random.Generator) -> np.ndarray:
    """Blur a map (k, h, w) where it is known, add noise, and cut it to its range."""
    known = ~np.isnan(layer)
    layer = np.where(known, layer, np.float32(0))
    if error.blur:
        layer, weight = (blurred(pixels.astype(np.float32), error.blur) for pixels in (layer, known))
        layer = np.divide(layer, weight, out=layer, where=weight > 0)
    if error.noise:
        noise = blurred(rng.standard_normal(layer.shape, dtype=np.float32), NOISE_WIDTH)
        layer = layer + noise * np.float32(error.noise * unit_of(target) / noise.std())
    return layer if target.activation == "linear" else layer.clip(0, 1)


def unit_of(target: Target) -> float:
    """Return the value of a map that stands for a probability of 1 or for `LENGTH_UNIT`."""
    if isinstance(target, Distance):
        return LENGTH_UNIT / target.reach
    return LENGTH_UNIT if isinstance(target, Offset) else 1.0


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur the last two axes by a Gaussian."""
    return ndimage.gaussian_filter(pixels, sigma, axes=(1, 2))


def table_of(counts: Mapping[tuple[str, str], Counts], title: str) -> Table:
    """Return the table of F1: a row for each recipe, a column for each error."""
    table = Table("instances from", *ERRORS, title=title, box=box.MARKDOWN)
    for recipe in RECIPES:
        table.add_row(recipe, *(f"{counts[recipe, error].f1:.3f}" for error in ERRORS))
    return table


def table_of_times(repeats: int = 9) -> Table:
    """Return the table of median times for tiles of few and of many buildings."""
    table = Table("one tile of 900 × 900, one core", "buildings", "time", "at most", "reached", box=box.MARKDOWN)
    for buildings in BUILDINGS:
        labels = crowded_labels(buildings)
        for name, (run, limits) in timed(labels).items():
            seconds, limit = medians({name: run}, repeats)[name], limits.get(buildings)
            reached = "" if limit is None else "yes" if seconds <= limit else "NO"
            table.add_row(
                name, str(buildings), with_unit(seconds, "s"), with_unit(limit, "s") if limit else "", reached
            )
    return table


def crowded_labels(buildings: int, size: int = SIZE) -> TileLabels:
    """Return the labels of a tile of rows of houses; they are smaller where there are more."""
    polygons = terraces(np.random.default_rng(SEED), buildings, size, MAX_SIDE * min(1, (60 / buildings) ** 0.5))
    instances = rasterize_instances(polygons, size, size)
    return TileLabels(instances, np.ones(instances.shape, dtype=bool), np.full(buildings + 1, 10.0), PIXEL)


def timed(labels: TileLabels) -> dict[str, tuple[Implementation, Mapping[int, float]]]:
    """Return what is timed by name, each with its limits in seconds by number of buildings."""
    targets = {"mask": Mask(), **WINNER, "distance": Distance(), "centre": Centre(), "offset": Offset()}
    maps = {name: target.tile(labels) for name, target in targets.items()}
    maps["offset"] = np.nan_to_num(maps["offset"])
    first = {name: targets[name] for name in ("mask", "edge", "contact", "distance")}
    rows: dict[str, tuple[Implementation, Mapping[int, float]]] = {
        "mask, edge, contact and distance": (lambda: tile_layers(first, replace(labels)), TARGET_LIMITS),
        "centre": (partial(targets["centre"].tile, labels), {}),
        "offset": (partial(targets["offset"].tile, labels), {}),
    }
    for name in ("binary components", "contact, radius 1.5 m", "distance to the own border", "centre and offset"):
        recipe = RECIPES[name]
        used = {"mask": maps["mask"]} | {head: maps[head] for head in recipe.targets}
        limits = WATERSHED_LIMITS if isinstance(recipe.polygonizer, SeededWatershed | DistanceWatershed) else {}
        rows[f"polygons: {name}"] = (partial(recipe.polygonizer, used, labels.valid, PIXEL), limits)
    return rows


if __name__ == "__main__":
    run_command(oracle, "benchmarks.oracle")
