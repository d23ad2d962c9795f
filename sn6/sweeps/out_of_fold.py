"""Predict the tiles of each fold with the run that validated them, calibrate on all of them, and write the footprints.

The outputs of the networks are on disk, so that the passes of the calibration compute them once, and a stopped command
resumes.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from sn6.callbacks.operating_point import Choice
from sn6.callbacks.point_search import PointSearch
from sn6.checkpoints.folds_file import write_folds
from sn6.checkpoints.loading import read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata
from sn6.checkpoints.polygonizer import build_polygonizer
from sn6.data.cross_fitting import cross_fit
from sn6.data.dataset import TileDataset
from sn6.data.folds import bounds_of, count_overlapping
from sn6.data.store import shown_size
from sn6.datasets.declaration import Tile
from sn6.errors import UserError, counted
from sn6.files import write_csv
from sn6.footprints.polygonizer import Maps, Polygonizer
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.writer import common_crs
from sn6.heads import Heads
from sn6.plots.curves import calibration_figure
from sn6.plots.tiles import save_figure
from sn6.prediction.ensemble import Averaging
from sn6.prediction.inputs import tile_image
from sn6.prediction.networks import default_precision, window_and_overlap
from sn6.prediction.output_folder import UNFINISHED
from sn6.prediction.plan import Plan
from sn6.prediction.trained_network import TrainedNetwork, load_network
from sn6.prediction.workers import Worker, list_devices, read_maps, to_file_frame
from sn6.progress import phase, track
from sn6.sweeps.fold_run import FoldRun
from sn6.sweeps.fold_runs import FoldRuns


class Options(NamedTuple):
    """How to predict: as the arguments of `sn6.predict`; `flips` None is as the runs did in their validation."""

    allow: tuple[str, ...]
    device: str
    flips: bool | None
    scales: tuple[float, ...]


class PooledTile(NamedTuple):
    """A tile, the plan and number of its image, whose outputs are those of the network that validated it, and heads."""

    tile: Tile
    plan: Plan
    number: int
    heads: Heads

    def maps(self) -> tuple[Maps, Bool[np.ndarray, "h w"]]:
        """Return the maps of the tile and where they are valid, in the sensor's frame."""
        image = self.plan.images[self.number]
        return read_maps(self.plan.mosaic(self.number).read, self.heads, slice(0, image.height), slice(0, image.width))


def write_out_of_fold(folds: FoldRuns, options: Options) -> str:
    """Write the out-of-fold footprints of all folds and the operating point that is calibrated on them.

    Each tile is predicted with the run that validated it. The operating point in the file is chosen on all tiles;
    the footprints of each half of them are at the point chosen on the other half, as in the calibration of a run.

    Args:
        folds: the runs
        options: how to predict

    Returns:
        What was chosen, or why the values of the config stay, in a line.

    Raises:
        UserError: a network cannot be loaded, was trained on ground that it validated, or a tile cannot be read
    """
    networks = [load_fold(run, tiles, options) for run, tiles in zip(folds.runs, folds.tiles, strict=True)]
    options = options._replace(flips=networks[0].flips if options.flips is None else options.flips)
    plans = [make_plan(folds, number, network, options) for number, network in enumerate(networks)]
    check_space(folds.folder, plans, networks[0].heads)
    predict(plans, networks[0].heads, options)
    pooled = [
        PooledTile(tile, plan, number, networks[0].heads)
        for plan, tiles in zip(plans, folds.tiles, strict=True)
        for number, tile in enumerate(tiles)
    ]
    config = build_polygonizer(folds.config["polygons"], "polygons")
    choice, note = calibrate(folds, pooled, networks[0], config)
    write_footprints(folds, pooled, config if choice is None else choice)
    write_choice(folds, choice, config, options)
    shutil.rmtree(folds.folder / UNFINISHED)
    return note


def load_fold(run: FoldRun, tiles: Sequence[Tile], options: Options) -> TrainedNetwork:
    """Load the network of a run.

    Raises:
        UserError: it was trained on the ground of a tile that it validated, and errors of `load_network`
    """
    _, metadata = read_checkpoint(run.checkpoint, "runs")
    area = metadata.training_area if isinstance(metadata, CheckpointMetadata) else None
    overlapping = count_overlapping(tiles, np.array(area or (), dtype=np.float64).reshape(-1, 4))
    if overlapping:
        raise UserError(
            f"{run.checkpoint} was trained on the ground of {counted(overlapping, 'tile')} of its validation: its "
            "footprints there are not out of fold; run the fold again",
            kind="leakage",
            key="runs",
            value=str(run.folder),
        )
    return load_network(run.checkpoint, options.allow)


def make_plan(folds: FoldRuns, number: int, network: TrainedNetwork, options: Options) -> Plan:
    """Return the plan that predicts the validated tiles of a run with its network, in their order."""
    run, tiles = folds.runs[number], folds.tiles[number]
    device = list_devices(options.device, 1)[0]
    plan = Plan(
        (run.checkpoint,),
        options.allow,
        tuple(tile_image(folds.data_set, tile, network.source) for tile in tiles),
        *window_and_overlap(None, None, network),
        Averaging(bool(options.flips), options.scales, default_precision(device, network)),
        network.polygonizer,
        1,
        folds.folder,
        None,
        network.heads.class_names,
    )
    digest = sha256(json.dumps(plan.settings(), sort_keys=True).encode()).hexdigest()[:16]
    return replace(plan, folder=folds.folder / UNFINISHED / f"fold{run.fold}-{digest}")


def check_space(folder: Path, plans: Sequence[Plan], heads: Heads) -> None:
    """Raise a UserError where the disk has no room for the outputs that are not there yet."""
    regions = (region for plan in plans for number in range(len(plan.images)) for region in plan.missing(number))
    pixels = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in regions)
    size, free = pixels * heads.channels * np.dtype(np.float32).itemsize, shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder} needs {shown_size(size)} for the outputs of the networks until they are scored, but only "
            f"{shown_size(free)} are free; free some space",
            kind="unwritable",
            key=folder,
        )


def predict(plans: Sequence[Plan], heads: Heads, options: Options) -> None:
    """Predict the windows that are not predicted yet, and show the progress."""
    missing = [sum(len(plan.missing(number)) for number in range(len(plan.images))) for plan in plans]
    device, done = list_devices(options.device, 1)[0], 0
    tiles = counted(sum(len(plan.images) for plan in plans), "tile")
    with phase(f"predicting {tiles}, each with the network of its fold", sum(missing)) as shown:
        for plan in (plan for plan, number in zip(plans, missing, strict=True) if number):
            worker = Worker(plan, device)
            for batch in plan.batches(list(range(len(plan.images)))):
                done += len(worker.predict(batch))
                shown.update(done)


def calibrate(
    folds: FoldRuns, pooled: Sequence[PooledTile], network: TrainedNetwork, config: Polygonizer
) -> tuple[Choice | None, str]:
    """Choose the operating point on the pooled tiles, as the runs do on theirs; return it with a note about it."""
    tiles, calibration = [one.tile for one in pooled], folds.config["callbacks"].get("calibration")
    scored = counted(len(tiles), "out-of-fold tile")
    stay = f"the fields of polygons stay those of the config ({config})"
    if calibration is None:
        return None, f"{stay}: the runs have callbacks.calibration=null"
    halves = cross_fit(bounds_of(tiles))
    if halves is None:
        return None, f"{stay}: {scored} cannot be cut into halves without common ground"
    dataset = TileDataset(folds.data_set, tiles, network.source, network.statistics)
    search = PointSearch(dataset, halves, calibration.get("candidates"))

    def enter_all() -> None:
        search.start_pass()
        doing = "refining the calibration" if search.is_refining else "calibrating"
        for index, one in enumerate(track(pooled, f"{doing} on {scored}")):
            search.table.enter(*search.score(index, *one.maps()))
        search.table.compute()

    choice = search.choose(enter_all, config)
    if choice is None:
        return None, f"{stay}: no candidate matches a building of {scored}"
    points = " and ".join(str(half.polygonizer) for half in choice.halves)
    return choice, (
        f"operating point: {choice.point.polygonizer}, chosen on {scored}; they are scored cross-fitted, each half of "
        f"them at the point chosen on the other half ({points})"
    )


def write_footprints(folds: FoldRuns, pooled: Sequence[PooledTile], point: Choice | Polygonizer) -> None:
    """Write the footprints of all tiles, each at its operating point: of its half, or that of all."""
    crs = common_crs(one.plan.images[one.number].crs for one in pooled)
    classes = pooled[0].plan.classes
    with (
        ChallengeCSVWriter(folds.proposals, classes) as table,
        GeoJSONWriter(folds.folder / "footprints.geojson", crs, folds.data_set.pixel_size, classes) as collection,
    ):
        for one in track(pooled, f"writing the footprints of {counted(len(pooled), 'tile')}"):
            polygonizer = point.cross_fitted[one.tile] if isinstance(point, Choice) else point
            image = one.plan.images[one.number]
            footprints = to_file_frame(polygonizer(*one.maps(), folds.data_set.pixel_size), image)
            table.write(image.image_id, image.corner, footprints)
            collection.write(image.image_id, image.corner, footprints, image.crs)


def write_choice(folds: FoldRuns, choice: Choice | None, config: Polygonizer, options: Options) -> None:
    """Write the operating point of all folds, and the table and figure of the points that were tried."""
    point: dict[str, Any] = (config if choice is None else choice.point.polygonizer).to_dict()
    point |= {"calibrated_on": None if choice is None else "out-of-fold tiles"}
    point |= {"f1": None, "halves": None} if choice is None else choice.to_dict()
    point |= {"flips": options.flips, "scales": list(options.scales)}
    tried, figure = folds.folder / "calibration.csv", folds.folder / "figures" / "calibration.png"
    if choice is None:  # an earlier score may have written them
        tried.unlink(missing_ok=True)
        figure.unlink(missing_ok=True)
    else:
        table = choice.table()
        write_csv(tried, list(table[0]), [list(row.values()) for row in table])
        save_figure(calibration_figure(table, choice.fields), figure)
    write_folds(folds.folder, [run.checkpoint for run in folds.runs], point)
