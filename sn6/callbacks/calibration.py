"""The threshold and the least area of footprints, chosen on training tiles once the training is over."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import NonNegativeInt

from sn6.callbacks.polygon_f1 import footprints_of, polygon_f1_of
from sn6.datasets.archive import Tile
from sn6.datasets.layout import PIXEL
from sn6.errors import UserError
from sn6.metrics.matching import match_tile
from sn6.metrics.tile_table import TileTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """How logits become footprints.

    Attributes:
        threshold: probability; a pixel above it is building
        min_area: m² of the smallest footprint
        f1: on the tiles that it was chosen on
    """

    threshold: float
    min_area: float
    f1: float


class Calibration(Callback):
    """Tries thresholds and least areas on whole training tiles with the best network, and keeps the best polygon F1.

    The choice is used by the test and, stored with the best checkpoint, by `sn6.predict`. No tile is looked at that
    is reported on: the validation tiles chose the epoch, the test tiles are for the score. Validations while training
    keep the values of the config.

    Args:
        tiles: training tiles, evenly chosen; 0 leaves the values of the config
        thresholds: probabilities to try
        min_areas: m² to try
    """

    def __init__(
        self, tiles: NonNegativeInt = 50, thresholds: Sequence[float] = (0.5,), min_areas: Sequence[float] = (20.0,)
    ) -> None:
        if not all(0 < probability < 1 for probability in thresholds):
            raise UserError(f"callbacks.calibration.thresholds={list(thresholds)}: probabilities lie between 0 and 1")
        self.number = tiles
        self.thresholds = list(thresholds)
        self.min_areas = list(min_areas)
        self.choice: Choice | None = None

    def choose_tiles(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Evenly chosen ones."""
        return [tiles[i] for i in np.unique(np.linspace(0, len(tiles) - 1, min(self.number, len(tiles))).astype(int))]

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An empty table for each pair."""
        loader: Any = trainer.predict_dataloaders
        self.dataset = loader.dataset
        self.tables = {pair: TileTable(len(self.dataset)) for pair in product(self.thresholds, self.min_areas)}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Scores the tiles of a batch by all pairs."""
        logits, valid = outputs["logits"][:, 0].float().cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        simplify, smallest = polygon_f1_of(trainer).simplify, min(self.min_areas)
        for i, index in enumerate(batch["index"].tolist()):
            truth = self.dataset.labels(index).polygons
            for threshold in self.thresholds:
                found = footprints_of(self.dataset, index, logits[i], valid[i], threshold, smallest, simplify)
                areas = np.array([polygon.area * PIXEL**2 for polygon in found.polygons])
                for min_area in self.min_areas:
                    large = areas >= min_area if len(areas) else np.zeros(0, dtype=bool)
                    counts = match_tile(truth, found.polygons[large], found.confidences[large]).counts
                    self.tables[threshold, min_area].enter(index, 0, 0, 0, counts)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses, on all ranks alike, and hands the choice to the score."""
        polygon_f1 = polygon_f1_of(trainer)
        scores = {pair: table.to(pl_module.device).compute()["f1"] for pair, table in self.tables.items()}
        pair, f1 = max(scores.items(), key=lambda item: item[1])
        if f1 > 0:  # else nothing was found, whatever the pair
            polygon_f1.threshold, polygon_f1.min_area = pair
        self.choice = Choice(polygon_f1.threshold, polygon_f1.min_area, f1)


def calibrate(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str) -> Choice | None:
    """Has the callback choose with the network at `best`, and writes the choice into that checkpoint.

    Returns:
        None where there is no such callback, or it is to look at no tiles
    """
    callback = next((one for one in trainer.callbacks if isinstance(one, Calibration)), None)
    if callback is None or callback.number == 0:
        return None
    loader = datamodule.eval_loader(callback.choose_tiles(datamodule.fold.train))
    trainer.predict(segmenter, loader, return_predictions=False, ckpt_path=best)
    assert callback.choice is not None
    if trainer.is_global_zero:
        held = torch.load(best, map_location="cpu", weights_only=True)
        how = {"threshold": callback.choice.threshold, "min_area": callback.choice.min_area}
        held["callbacks"][polygon_f1_of(trainer).state_key] |= how
        trainer.strategy.checkpoint_io.save_checkpoint(held, best)
    trainer.strategy.barrier()
    return callback.choice
