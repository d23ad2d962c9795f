"""A trained network with what its run says of it, for the files that describe it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from sn6.checkpoints.metadata import CheckpointMetadata
from sn6.checkpoints.run_files import BEST, WEIGHTS_FILE
from sn6.exports.training_data import TrainingData, training_data
from sn6.files import read_json
from sn6.metrics.breakdown import bootstrap_f1, spatial_blocks
from sn6.metrics.comparison import BLOCK_SIZE, RESAMPLES
from sn6.metrics.scorecard import LEVEL
from sn6.sweeps.compared_runs import TILES_FILE, read_tile_counts
from sn6.sweeps.fold_run import TILES_FILE as VALIDATED_FILE
from sn6.sweeps.fold_run import validated_tiles
from sn6.training.contact_sheet import CONTACT_SHEET
from sn6.training.resume import METRICS_FILE, is_complete
from sn6.training.saved_config import CONFIG_FILE, saved_config

EXAMPLE_FILE = "example.png"  # the picture in a model folder
STRIP = re.compile(r"(\d{14})_(\d{14})_")  # begin and end of a pass, UTC, with which the names of tiles begin


@dataclass(frozen=True, eq=False)
class ExportedRun:
    """A trained network and what its run left.

    Attributes:
        name: of the run, else of the file
        file: of the weights
        metadata: of the file
        parameters: number of numbers that were trained
        config: of the run; empty where there is none beside the file
        metrics: contents of metrics.json, likewise
        interval: of the F1 on the test tiles, None where it cannot be computed
        copied: files of the run → their names in a model folder
        dates: first and last acquisition of the validation tiles, which the same passes have imaged as the training
            tiles, as RFC 3339; None where the names of the tiles do not say
    """

    name: str
    file: Path
    metadata: CheckpointMetadata
    parameters: int
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    interval: tuple[float, float] | None
    copied: Mapping[Path, str]
    dates: tuple[str, str] | None

    @property
    def architecture(self) -> str:
        """Return the class of the network, and its encoder where it has one."""
        options = self.metadata.network
        name = str(options["_target_"]).rpartition(".")[2]
        return f"{name} ({options['encoder']})" if options.get("encoder") else name

    @property
    def versions(self) -> Mapping[str, str | None]:
        """Return package → version that it was trained with; empty where that is not known."""
        return self.metrics.get("environment", {}).get("versions") or self.metadata.versions

    @property
    def data(self) -> TrainingData:
        """Return what it was trained on."""
        return training_data(self.config, self.metrics)


def read_exported_run(file: Path, metadata: CheckpointMetadata, parameters: int) -> ExportedRun:
    """Read what is beside a file of weights: a run's folder, or the folder of an export.

    Of another checkpoint than the best one, such as last.ckpt, the scores of the run say nothing.

    Args:
        file: the weights
        metadata: of the file
        parameters: number of numbers that were trained

    Raises:
        UserError: a file in the folder is broken
    """
    folder = file.parents[1] if file.parent.name == Path(BEST).parent.name else file.parent
    is_scored = file in (folder / BEST, folder / WEIGHTS_FILE)
    config = saved_config(folder)
    metrics = read_json(folder / METRICS_FILE) if is_scored and (folder / METRICS_FILE).exists() else {}
    metrics = metrics if is_complete(metrics) else {}
    pictures = [folder / name for name in (CONTACT_SHEET, EXAMPLE_FILE) if is_scored and (folder / name).exists()]
    copied = dict.fromkeys(pictures[:1], EXAMPLE_FILE)
    copied |= {folder / CONFIG_FILE: CONFIG_FILE} if config else {}
    copied |= {folder / METRICS_FILE: METRICS_FILE} if metrics else {}
    tables = [name for name in (TILES_FILE, VALIDATED_FILE) if metrics and (folder / name).exists()]
    copied |= {folder / name: name for name in tables}
    return ExportedRun(
        str(config.get("name") or file.stem),
        file,
        metadata,
        parameters,
        config,
        metrics,
        f1_interval(folder / TILES_FILE, metrics),
        copied,
        acquisition_dates(metadata, folder),
    )


def f1_interval(path: Path, metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the interval of the F1 on the test tiles, as `sn6.compare` computes it.

    Args:
        path: table of the test tiles
        metrics: contents of metrics.json

    Returns:
        None where there is no table, where it is of other scores, or where all tiles are in one square of ground.
    """
    if not (metrics and path.exists()):
        return None
    counted = read_tile_counts(path)
    sums = dict(zip(("tp", "fp", "fn"), counted.counts[0].sum(axis=0).tolist(), strict=True))
    if any(metrics["test"].get(key) != value for key, value in sums.items()):
        return None
    blocks = spatial_blocks(counted.corners, BLOCK_SIZE)
    return bootstrap_f1(counted.counts[0], blocks, RESAMPLES, LEVEL) if np.ptp(blocks) else None


def acquisition_dates(metadata: CheckpointMetadata, folder: Path) -> tuple[str, str] | None:
    """Return the times of the first and the last pass of the validation tiles, if these are radar tiles of SpaceNet 6.

    Args:
        metadata: of the weights
        folder: of the run
    """
    path = folder / VALIDATED_FILE
    if metadata.source.product.sensor != "radar" or not path.exists():
        return None
    strips = [STRIP.match(image_id) for image_id in validated_tiles(path)]
    times = [datetime.strptime(text, "%Y%m%d%H%M%S") for strip in strips if strip for text in strip.groups()]
    return (rfc3339(min(times)), rfc3339(max(times))) if times else None


def rfc3339(time: datetime) -> str:
    """Return a time in UTC as text."""
    return f"{time.isoformat()}Z"
