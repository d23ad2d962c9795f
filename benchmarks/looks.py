"""Measure polygon F1 by the number of tiles whose outputs are fused, from one side and from both.

    python -m benchmarks.looks checkpoint=[RUN,...] root=ARCHIVE          (--help lists its keys)

The outputs of every test tile are predicted once. Then each tile is fused with a random subset of the tiles that
overlap it, itself always among them: from its own side only, or from both, of the other side first and in turns, so
that both have as many as possible. The subsets of a draw contain each other, and all checkpoints take the same ones.

Assumptions: footprints are made on the valid pixels of the tile itself, at the operating point of the run, which was
chosen on single tiles. A tile has no more looks than tiles overlap it, and one that overlaps it in part is a look at
that part: the table has the mean number of looks at a valid pixel, and the figure has it as its axis. Tiles count one
by one, as in sn6.score, so buildings that many tiles see count often; the intervals resample squares of ground.
"""

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from pydantic import Field, NonNegativeInt, PositiveInt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.look_subsets import SINGLE, VARIANTS, Measurement, Variant
from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.cli import run_command
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.errors import UserError, counted
from sn6.footprints import Labels
from sn6.metrics.breakdown import central, resampled_counts, spatial_blocks
from sn6.metrics.comparison import BLOCK_SIZE, PARTS, RESAMPLES, with_interval
from sn6.metrics.matching import make_valid
from sn6.metrics.scorecard import LEVEL
from sn6.predict import as_tuple
from sn6.prediction.ensemble import Averaging
from sn6.prediction.fused_sides import check_sides
from sn6.prediction.fusion import Fusion
from sn6.prediction.images import Image, TileImage
from sn6.prediction.inputs import archive_images
from sn6.prediction.map_grid import Layout
from sn6.prediction.networks import default_precision, window_and_overlap
from sn6.prediction.output_folder import claim_folder
from sn6.prediction.plan import Plan
from sn6.prediction.trained_network import load_network
from sn6.prediction.workers import Worker, list_devices
from sn6.processes import in_processes

MIN_PIXELS_FOR_POOL = 10_000_000  # of all tiles; fewer are fused before other processes have started
SCORES = ("f1", "precision", "recall")
SIDES = {False: "own side", True: "both sides"}
Counted: TypeAlias = Int64[np.ndarray, "checkpoints variants draws tiles columns"]


def looks(
    checkpoint: Annotated[list[Path] | Path, "runs, checkpoints or weights.safetensors; each by itself, as seeds"],
    root: Annotated[Path, "archive whose test tiles have labels, such as a simulated one"],
    out: Annotated[Path, "folder of the outputs, the counts and the figure; the same command resumes"] = Path(
        "outputs/looks"
    ),
    draws: Annotated[PositiveInt, "random subsets for each number of tiles"] = 3,
    seed: Annotated[NonNegativeInt, "of the subsets"] = 0,
    fade: Annotated[float, Field(ge=0, allow_inf_nan=False), "as of sn6.predict"] = 16.0,
    balance: Annotated[bool, "as of sn6.predict"] = True,
    allow: Annotated[list[str] | str | None, "as of sn6.predict"] = None,
    device: Annotated[str, "of the networks: auto, cpu, cuda or cuda:N"] = "auto",
) -> None:
    """Print F1, precision and recall for 1, 2, 4, 8 and all tiles, and draw F1.

    Raises:
        UserError: no two test tiles overlap, or they have no labels; and errors of sn6.predict
    """
    paths = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    allowed, tables = as_tuple(allow) or (), []
    for number, path in enumerate(paths):
        file = find_weights(path, "checkpoint", FINAL_WEIGHTS)
        tables.append(measure((file, allowed), root, out / str(number), (draws, seed), Fusion(fade, balance), device))
    counts, blocks = np.stack([table for table, _ in tables]), tables[0][1]
    title = f"{counted(len(paths), 'checkpoint')}, {counted(draws, 'draw')}, {LEVEL:.0%} intervals over "
    title += f"{int(blocks.max()) + 1} blocks of ground"
    console = Console(width=None if sys.stdout.isatty() else 200)
    scores = {variant: scores_of(counts[:, row], blocks) for row, variant in enumerate(VARIANTS)}
    for part in range(len(PARTS)):
        console.print(table_of(scores, counts, part, title))
    figure_of(scores, counts).savefig(out / "looks.png", dpi=110)
    print(f"outputs and figure: {out}")


def measure(
    checkpoint: tuple[Path, tuple[str, ...]], root: Path, out: Path, draws: tuple[int, int], fusion: Fusion, device: str
) -> tuple[Int64[np.ndarray, "variants draws tiles columns"], Int64[np.ndarray, " tiles"]]:
    """Measure a network; return the counts, and the block of ground of each tile.

    Args:
        checkpoint: file of the network, and classes of other packages that it may name
        root: the archive
        out: folder of this network
        draws: their number and seed
        fusion: how the looks are weighted
        device: of the network
    """
    network = load_network(*checkpoint)
    images = tuple(archive_images(SpaceNet6(root), "test_public", network.source, None))
    layout = Layout(images)
    if not layout.maps:
        raise UserError(
            f"no two test tiles of root={root} overlap on the ground; simulate an archive with passes=",
            kind="wrong_data",
            key="root",
            value=root,
        )
    check_sides(layout, [network.training_area])
    used = list_devices(device, 1)[0]
    averaging = Averaging(network.flips, (1.0,), default_precision(used, network))
    window = window_and_overlap(None, None, network)
    plan = Plan(
        (checkpoint[0],), checkpoint[1], images, *window, averaging, network.polygonizer, 1, out, None, fusion=fusion
    )
    claim_folder(out, plan.settings() | {"draws": draws[0], "seed_of_draws": draws[1]})
    measurement = Measurement(plan, network.heads, *draws)
    everything = range(len(images))
    tiles = [(number, labels_of(images[number])) for number in everything if not measurement.path(number).exists()]
    if tiles:
        predict_missing(plan, used)
    is_worth_it = sum(images[number].height * images[number].width for number, _ in tiles) >= MIN_PIXELS_FOR_POOL
    fusing = in_processes(measurement.run, tiles, is_worth_it)
    for _ in track(fusing, "fusing", total=len(tiles), console=Console(stderr=True)):
        pass
    counts = np.stack([np.load(measurement.path(number)) for number in everything], axis=2)
    return counts, spatial_blocks(np.array([image.corner for image in images]), BLOCK_SIZE)


def predict_missing(plan: Plan, device: str) -> None:
    """Store the outputs of all windows that are not stored yet."""
    missing = sum(len(plan.missing(number)) for number in range(len(plan.images)))
    if missing:
        worker, batches = Worker(plan, device), plan.batches([*range(len(plan.images))])
        for batch in track(batches, "predicting", total=missing, console=Console(stderr=True)):
            worker.predict(batch)


def labels_of(image: Image) -> Labels:
    """Return the ground truth of a tile, with valid polygons; raise a UserError where it is unknown."""
    assert isinstance(image.raster, TileImage)
    labels = image.raster.data_set.labels(image.raster.tile)
    if labels is None:
        raise UserError(
            f"{image.path}: the archive has no labels of this tile; give a simulated archive",
            kind="wrong_data",
            key="root",
            value=image.image_id,
        )
    return Labels(make_valid(labels.polygons), labels.heights)


def scores_of(
    counts: Int64[np.ndarray, "checkpoints draws tiles columns"], blocks: Int64[np.ndarray, " tiles"]
) -> Float[np.ndarray, "scores parts resamples"]:
    """Return SCORES of PARTS, means over checkpoints and draws: of all blocks, then those of resampled blocks."""
    everything, touching = counts[..., 0:3], counts[..., 3:6]
    by_part = np.stack([everything, touching, everything - touching], axis=2)
    whole = by_part.sum(axis=-2)[..., None, :]
    tp, fp, fn = np.moveaxis(np.concatenate([whole, resampled_counts(by_part, blocks, RESAMPLES)], axis=-2), -1, 0)
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    precision, recall = tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1)
    return np.stack([one.mean(axis=(0, 1)) for one in (f1, precision, recall)])


def mean_of(counts: Counted, variant: Variant) -> tuple[float, float]:
    """Return the mean number of tiles that are fused, and the mean number of looks at a valid pixel."""
    tiles, seen, pixels = np.moveaxis(counts[:, VARIANTS.index(variant), ..., 6:], -1, 0)
    return float(tiles.mean()), float(seen.sum() / max(pixels.sum(), 1))


def table_of(
    scores: dict[Variant, np.ndarray],
    counts: Counted,
    part: int,
    title: str,
) -> Table:
    """Return the table of the buildings of a part."""
    named = f"{list(PARTS)[part]} buildings: {title}"
    columns = ("tiles at most", "from", "tiles", "looks at a pixel", "F1", "difference to one tile", *SCORES[1:])
    table = Table(*columns, title=named, box=box.MARKDOWN)
    for variant, of_variant in scores.items():
        f1, precision, recall = of_variant[:, part]
        gain = "" if variant == SINGLE else with_interval(f1 - scores[SINGLE][0, part], "+")
        means = [f"{mean:.1f}" for mean in mean_of(counts, variant)]
        side = "itself" if variant == SINGLE else SIDES[variant.both_sides]
        intervals = [with_interval(precision), with_interval(recall)]
        table.add_row(str(variant.tiles or "all"), side, *means, with_interval(f1), gain, *intervals)
    return table


def figure_of(scores: dict[Variant, np.ndarray], counts: Counted) -> Figure:
    """Draw F1 of each part against the mean number of looks at a pixel, a line for each choice of sides."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    for part, (name, axes) in enumerate(zip(PARTS, figure.subplots(1, len(PARTS)), strict=True)):
        for both_sides, label in SIDES.items():
            shown = [SINGLE, *(one for one in VARIANTS[1:] if one.both_sides == both_sides)]
            x = [mean_of(counts, variant)[1] for variant in shown]
            f1 = [scores[variant][0, part] for variant in shown]
            low, high = np.transpose([central(one[1:], LEVEL) for one in f1])
            axes.fill_between(x, low, high, alpha=0.2)
            axes.plot(x, [one[0] for one in f1], "o-", label=label)
        axes.set_title(f"{name} buildings")
        axes.set_xlabel("mean number of looks at a valid pixel")
    figure.axes[0].set_ylabel(f"polygon F1, test tiles, {LEVEL:.0%} interval")
    figure.axes[0].legend()
    return figure


if __name__ == "__main__":
    run_command(looks, "benchmarks.looks")
