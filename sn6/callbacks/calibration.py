"""Choose the threshold and the minimum area of footprints on training tiles, after training."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from pydantic import NonNegativeFloat, NonNegativeInt

from sn6.callbacks.polygon_f1 import Probability, footprints_of, polygon_f1_of
from sn6.datasets.archive import Tile
from sn6.datasets.layout import PIXEL
from sn6.footprints import PolygonOptions
from sn6.metrics.matching import match_tile
from sn6.metrics.tile_table import TileTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The calibrated options.

    Attributes:
        options: from logits to footprints
        f1: polygon F1 on the tiles that they were calibrated on
    """

    options: PolygonOptions
    f1: float


class Calibration(Callback):
    """Score training tiles with the best network at several thresholds and minimum areas, and keep the best pair.

    It is the operating point of all results: of the scores of validation and test, pictures, tables and files, and,
    stored with the best checkpoint, of `sn6.predict`. No tile that is reported on is used: the validation tiles chose
    the epoch, the test tiles are for the score. Validations while training keep the values of the config.

    Args:
        tiles: number of training tiles, evenly spaced; 0 keeps the values of the config
        thresholds: probabilities; candidates
        min_areas: m²; candidates
    """

    def __init__(
        self,
        tiles: NonNegativeInt = 50,
        thresholds: Sequence[Probability] = (0.5,),
        min_areas: Sequence[NonNegativeFloat] = (20.0,),
    ) -> None:
        self.number = tiles
        self.thresholds = list(thresholds)
        self.min_areas = list(min_areas)
        self.choice: Choice | None = None

    def choose_tiles(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Return evenly spaced tiles."""
        return [tiles[i] for i in np.unique(np.linspace(0, len(tiles) - 1, min(self.number, len(tiles))).astype(int))]

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make an empty table for each pair."""
        loader: Any = trainer.predict_dataloaders
        self.dataset = loader.dataset
        self.tables = {pair: TileTable(len(self.dataset)) for pair in product(self.thresholds, self.min_areas)}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Score the tiles of a batch with all pairs."""
        logits, valid = outputs["logits"][:, 0].float().cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        smallest = replace(polygon_f1_of(trainer).options, min_area=min(self.min_areas))
        for i, index in enumerate(batch["index"].tolist()):
            truth = self.dataset.labels(index).polygons
            for threshold in self.thresholds:
                options = replace(smallest, threshold=threshold)
                footprints = footprints_of(self.dataset, index, logits[i], valid[i], options)
                areas = np.array([polygon.area * PIXEL**2 for polygon in footprints.polygons])
                for min_area in self.min_areas:
                    large = areas >= min_area if len(areas) else np.zeros(0, dtype=bool)
                    counts = match_tile(truth, footprints.polygons[large], footprints.confidences[large]).counts
                    self.tables[threshold, min_area].enter(index, 0, 0, 0, counts)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the best pair, the same on all ranks, and give it to the score."""
        polygon_f1 = polygon_f1_of(trainer)
        scores = {pair: table.to(pl_module.device).compute()["f1"] for pair, table in self.tables.items()}
        (threshold, min_area), f1 = max(scores.items(), key=lambda item: item[1])
        if f1 > 0:  # else nothing was matched with any pair
            polygon_f1.options = replace(polygon_f1.options, threshold=threshold, min_area=min_area)
        self.choice = Choice(polygon_f1.options, f1)


def calibrate(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str) -> Choice | None:
    """Calibrate with the network at `best`.

    Returns:
        None where there is no such callback, or it uses no tiles.
    """
    callback = next((one for one in trainer.callbacks if isinstance(one, Calibration)), None)
    if callback is None or callback.number == 0:
        return None
    loader = datamodule.eval_loader(callback.choose_tiles(datamodule.fold.train))
    trainer.predict(segmenter, loader, return_predictions=False, ckpt_path=best)
    return callback.choice


def validate_calibrated(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str) -> None:
    """Validate the network at `best` at the operating point, and write both to that checkpoint.

    Nothing is logged: the `val/...` of the training, which chose the epoch, stay the only points of their curves.
    """
    loggers, trainer.loggers = trainer.loggers, []
    profiler, trainer.profiler = trainer.profiler, PassThroughProfiler()  # torch's fails in a second validation
    trainer.validate(segmenter, datamodule, ckpt_path=best, verbose=False)
    trainer.loggers, trainer.profiler = loggers, profiler
    if trainer.is_global_zero:
        checkpoint, polygon_f1 = torch.load(best, map_location="cpu", weights_only=True), polygon_f1_of(trainer)
        checkpoint["callbacks"][polygon_f1.state_key] |= polygon_f1.state_dict()
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, best)
    trainer.strategy.barrier()
