"""Measure vertices, holes and polygon F1 of footprints: as they are, cleaned, and regularised.

    python -m benchmarks.outlines checkpoint=[RUN,...] root=ARCHIVE          (--help lists its keys)

The outputs of each test tile are predicted once. Each variant makes footprints from them at the operating point of the
run but for the fields that it names, and `regularize` those of a tile at once, as sn6.predict does.

Assumptions: images are not flipped, and arithmetic is in single precision. Vertices and holes are those of all
footprints of all checkpoints, a vertex of each ring counted once; F1 is the mean over checkpoints, its intervals
resample squares of ground. Buildings that many tiles see count often, as in sn6.score.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import shapely
from jaxtyping import Float, Int64
from pydantic import PositiveInt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.looks import labels_of, predict_missing
from benchmarks.recipes import BLOCK_SIZE, RESAMPLES, with_interval
from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.cli import run_command
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.errors import counted
from sn6.footprints import Footprints, Labels
from sn6.heads import Heads
from sn6.metrics.breakdown import resampled_counts, spatial_blocks
from sn6.metrics.matching import counted_area, make_valid, match_tile
from sn6.metrics.scorecard import LEVEL
from sn6.predict import as_tuple
from sn6.prediction.ensemble import Averaging
from sn6.prediction.inputs import archive_images
from sn6.prediction.networks import window_and_overlap
from sn6.prediction.output_folder import claim_folder
from sn6.prediction.plan import Plan
from sn6.prediction.regular_results import regularize_scaled
from sn6.prediction.trained_network import load_network
from sn6.prediction.workers import list_devices, read_maps, to_file_frame

CLEANED = {"fill_holes": 20.0, "opening": 1.5}
VARIANTS: dict[str, tuple[dict[str, float], bool]] = {  # name → fields, whether they are regularised
    "as they are": ({}, False),
    "fill_holes=20 opening=1.5": (CLEANED, False),
    "fill_holes=20 opening=1.5 simplify=1": (CLEANED | {"simplify": 1.0}, False),
    "fill_holes=20 opening=1.5 simplify=1.5": (CLEANED | {"simplify": 1.5}, False),
    "fill_holes=20 opening=1.5 simplify=1 regularize=true": (CLEANED | {"simplify": 1.0}, True),
}


class Measured(NamedTuple):
    """What is measured of the footprints of a variant on a tile.

    Attributes:
        counts: true positives, false positives and false negatives
        vertices: of each footprint
        holes: of each footprint
        changed: number of footprints that are regularised
        seconds: that this takes
    """

    counts: list[int]
    vertices: Int64[np.ndarray, " n"]
    holes: Int64[np.ndarray, " n"]
    changed: int
    seconds: float


def outlines(
    checkpoint: Annotated[list[Path] | Path, "runs, checkpoints or weights.safetensors; each by itself, as seeds"],
    root: Annotated[Path, "archive whose test tiles have labels, such as a simulated one"],
    out: Annotated[Path, "folder of the outputs; the same command resumes"] = Path("outputs/outlines"),
    tiles: Annotated[PositiveInt | None, "only so many test tiles, the first ones; null is all"] = None,
    allow: Annotated[list[str] | str | None, "as of sn6.predict"] = None,
    device: Annotated[str, "of the networks: auto, cpu, cuda or cuda:N"] = "auto",
) -> None:
    """Print vertices, holes and F1 of each variant.

    Raises:
        UserError: the test tiles have no labels; and errors of sn6.predict
    """
    paths = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    plans = [
        plan_of(
            (find_weights(path, "checkpoint", FINAL_WEIGHTS), as_tuple(allow) or ()),
            root,
            out / str(number),
            device,
            tiles,
        )
        for number, path in enumerate(paths)
    ]
    images = plans[0][0].images
    truths = [labels_of(image) for image in images]
    measured = [
        [measure(*plan, number, truth) for number, truth in enumerate(track(truths, console=Console(stderr=True)))]
        for plan in plans
    ]
    blocks = spatial_blocks(np.array([image.corner for image in images]), BLOCK_SIZE)
    title = f"{counted(len(paths), 'checkpoint')}, {LEVEL:.0%} intervals over {int(blocks.max()) + 1} blocks of ground"
    Console(width=None if sys.stdout.isatty() else 200).print(table_of(measured, blocks, title))


def plan_of(
    checkpoint: tuple[Path, tuple[str, ...]], root: Path, out: Path, device: str, tiles: int | None = None
) -> tuple[Plan, Heads]:
    """Store the outputs of a network for the test tiles, and return their plan and its heads."""
    network = load_network(*checkpoint)
    images = tuple(archive_images(SpaceNet6(root), "test_public", network.source, None))[:tiles]
    window, averaging = window_and_overlap(None, None, network), Averaging(False, (1.0,), "32-true")
    plan = Plan((checkpoint[0],), checkpoint[1], images, *window, averaging, network.polygonizer, 1, out, None)
    claim_folder(out, plan.settings())
    predict_missing(plan, list_devices(device, 1)[0])
    return plan, network.heads


def footprints_of(plan: Plan, heads: Heads, number: int, fields: dict[str, float], is_regularized: bool) -> Footprints:
    """Return the footprints of a tile, with valid polygons."""
    image = plan.images[number]
    maps, valid = read_maps(plan.mosaic(number).read, heads, slice(0, image.height), slice(0, image.width))
    made = to_file_frame(replace(plan.polygonizer, **fields)(maps, valid, image.pixel_metres), image)
    polygons = make_valid(made.polygons)
    return replace(made, polygons=regularize_scaled(polygons, image.pixel_metres) if is_regularized else polygons)


def measure(plan: Plan, heads: Heads, number: int, truth: Labels) -> list[Measured]:
    """Make the footprints of a tile in each variant, and compare them with the ground truth."""
    pixel_size, results = plan.images[number].pixel_metres, []
    for fields, is_regularized in VARIANTS.values():
        made = footprints_of(plan, heads, number, fields, is_regularized=False)
        polygons, changed, seconds = made.polygons, 0, 0.0
        if is_regularized:
            start = time.perf_counter()
            polygons = regularize_scaled(made.polygons, pixel_size)
            seconds = time.perf_counter() - start
            changed = int((~shapely.equals(polygons, made.polygons)).sum())
        counts = match_tile(truth.polygons, polygons, made.confidences, counted_area(pixel_size)).counts
        holes = shapely.get_num_interior_rings(polygons).astype(np.int64)
        vertices = shapely.get_num_coordinates(polygons) - holes - 1  # of each ring the first is also the last
        results.append(Measured([counts.tp, counts.fp, counts.fn], vertices, holes, changed, seconds))
    return results


def table_of(measured: list[list[list[Measured]]], blocks: Int64[np.ndarray, " tiles"], title: str) -> Table:
    """Return the table of the variants, from checkpoints of tiles of variants."""
    columns = ("", "footprints", "vertices, median", "95%", "maximum", "holes per footprint", "F1", "difference")
    table = Table(*columns, "precision", "recall", "regularised", "ms per footprint", title=title, box=box.MARKDOWN)
    first: Float[np.ndarray, " resamples"] | None = None
    for row, name in enumerate(VARIANTS):
        runs = [[tile[row] for tile in tiles] for tiles in measured]
        tiles = [tile for run in runs for tile in run]
        f1, precision, recall = scores_of(np.array([[tile.counts for tile in run] for run in runs]), blocks)
        vertices, holes = (np.concatenate([getattr(tile, key) for tile in tiles]) for key in ("vertices", "holes"))
        gain = "" if first is None else with_interval(f1 - first, "+")
        first = f1 if first is None else first
        changed, seconds = sum(tile.changed for tile in tiles), sum(tile.seconds for tile in tiles)
        shape = [f"{np.median(vertices):.0f}", f"{np.quantile(vertices, 0.95):.0f}", str(vertices.max())]
        regular = [f"{changed / len(vertices):.0%}", f"{1000 * seconds / len(vertices):.1f}"] if seconds else ["", ""]
        scores = [with_interval(f1), gain, f"{precision[0]:.3f}", f"{recall[0]:.3f}"]
        table.add_row(name, str(len(vertices)), *shape, f"{holes.mean():.2f}", *scores, *regular)
    return table


def scores_of(
    counts: Int64[np.ndarray, "checkpoints tiles 3"], blocks: Int64[np.ndarray, " tiles"]
) -> Float[np.ndarray, "3 resamples"]:
    """Return F1, precision and recall, means over checkpoints: of all blocks, then of resampled blocks."""
    whole = counts.sum(axis=1)[:, None]
    tp, fp, fn = np.moveaxis(np.concatenate([whole, resampled_counts(counts, blocks, RESAMPLES)], axis=1), -1, 0)
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return np.stack([one.mean(axis=0) for one in (f1, tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1))])


if __name__ == "__main__":
    run_command(outlines, "benchmarks.outlines")
