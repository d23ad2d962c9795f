"""Score the test tiles of a run once more, with the mean of all looks at their ground."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer

from sn6.data.datamodule import TileDataModule
from sn6.errors import counted
from sn6.footprints import Footprints
from sn6.metrics.breakdown import rates
from sn6.metrics.instances import InstanceCounts, compare_instances
from sn6.metrics.matching import Counts, counted_area, match_tile
from sn6.prediction.ensemble import Averaging
from sn6.prediction.fused_sides import check_sides
from sn6.prediction.fusion import Fusion
from sn6.prediction.inputs import tile_image
from sn6.prediction.networks import default_precision, model_id, window_and_overlap
from sn6.prediction.output_folder import UNFINISHED
from sn6.prediction.partial_results import read_part
from sn6.prediction.plan import Plan
from sn6.prediction.results import Products, write_footprints
from sn6.prediction.trained_network import load_network
from sn6.prediction.workers import process_all
from sn6.progress import phase
from sn6.training.foreign_classes import foreign_classes

FOLDER = "revisits"
FORMATS = ("csv", "geojson", "parquet")
log = logging.getLogger(__name__)


def score_revisits(
    trainer: Trainer, datamodule: TileDataModule, best: str, config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Fuse the test tiles, write their footprints to `revisits/` in the run's folder, and return their scores.

    The first rank does it alone, on its device. The operating point is that of single tiles.

    Args:
        trainer: of the run
        datamodule: of the run
        best: path of the checkpoint
        config: of the run

    Returns:
        Scores, and `looks`, the mean number of tiles at the ground of a tile; None where no two test tiles overlap, and
        on the other ranks.
    """
    if not trainer.is_global_zero:
        return None
    plan = plan_of(trainer, datamodule, best, config)
    if not plan.layout.maps:
        log.info("test.revisits=true changes nothing: no two test tiles overlap")
        return None
    network = load_network(Path(best), plan.allow)
    check_sides(plan.layout, [network.training_area])
    with phase(f"predicting and fusing {counted(len(plan.images), 'test tile')}") as shown:
        process_all(plan, [str(trainer.strategy.root_device)], shown.update)
    write_footprints(plan.folder.parent, plan, Products(FORMATS, model=model_id([network])))
    scores = score_parts(plan, datamodule)
    shutil.rmtree(plan.folder)
    return scores


def plan_of(trainer: Trainer, datamodule: TileDataModule, best: str, config: Mapping[str, Any]) -> Plan:
    """Return the plan that predicts the test tiles as `sn6.predict revisits=true` does."""
    allow = foreign_classes(config)
    network, device = load_network(Path(best), allow), str(trainer.strategy.root_device)
    return Plan(
        (Path(best),),
        allow,
        tuple(tile_image(datamodule.data_set, tile, network.source) for tile in datamodule.fold.test),
        *window_and_overlap(None, None, network),
        Averaging(network.flips, (1.0,), default_precision(device, network)),
        network.polygonizer,
        1,
        Path(config["folder"]) / FOLDER / UNFINISHED,
        None,
        network.heads.class_names,
        Fusion(config["test"]["fade"], config["test"]["balance"]),
    )


def score_parts(plan: Plan, datamodule: TileDataModule) -> dict[str, Any]:
    """Return the scores of the finished images of a plan, which are the test tiles."""
    pixel_size = datamodule.source.product.grid
    total, instances, looks = Counts(), InstanceCounts(), 0.0
    for number, tile in enumerate(datamodule.fold.test):
        footprints = Footprints.concatenated(list(read_part(plan.part(number))))
        labels = datamodule.data_set.labels(tile)
        truth = np.empty(0, dtype=object) if labels is None else labels.polygons
        match = match_tile(truth, footprints.polygons, footprints.confidences, counted_area(pixel_size))
        total += match.counts
        instances += compare_instances(truth, footprints.polygons, match, pixel_size).counts(match)
        looks += plan.layout.mean_looks(number)
    parts = {"touching": instances.touching, "alone": total - instances.touching}
    by_part = {f"{name}_{key}": value for name, counts in parts.items() for key, value in rates(counts).items()}
    of_tiles = {"tiles": len(plan.images), "looks": looks / len(plan.images)}
    return rates(total) | instances.scores(total) | by_part | of_tiles
