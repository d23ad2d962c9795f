"""Choose the threshold and the minimum area of footprints on the validation tiles, after training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Int
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.profilers import PassThroughProfiler
from pydantic import Field, NonNegativeFloat

from sn6.callbacks.polygon_f1 import Probability, polygon_f1_of
from sn6.callbacks.scoring import ScoringThread, score_tile
from sn6.checkpoints.torch_file import read_torch_file
from sn6.data.cross_fitting import Half, cross_fit
from sn6.data.folds import bounds_of
from sn6.datasets.archive import Tile
from sn6.errors import counted
from sn6.footprints import PolygonOptions
from sn6.metrics.matching import Counts
from sn6.metrics.tile_table import TileTable, pool

log = logging.getLogger(__name__)
Pair = tuple[float, float]  # threshold and minimum area


@dataclass(frozen=True)
class Point:
    """An operating point, and how it was chosen.

    Attributes:
        options: from logits to footprints
        f1: polygon F1 of the tiles that chose it; 0 where no pair matches anything: the config's values stay
        chosen_on: number of the tiles that chose it
        tiles: number of the tiles that are scored with it, which are others
    """

    options: PolygonOptions
    f1: float
    chosen_on: int
    tiles: int


@dataclass(frozen=True)
class Choice:
    """What the calibration chose.

    Attributes:
        point: of all results outside the validation tiles, chosen on all of them
        halves: of the halves of the validation tiles, each chosen on tiles of the other half
        cross_fitted: validation tile → options of its half
    """

    point: Point
    halves: tuple[Point, ...]
    cross_fitted: Mapping[Tile, PolygonOptions] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return how the point was chosen, for metrics.json."""
        keys = ("threshold", "min_area", "f1", "chosen_on", "tiles")
        halves = [{key: (asdict(half.options) | asdict(half))[key] for key in keys} for half in self.halves]
        return {"f1": self.point.f1, "halves": halves}


class Calibration(Callback):
    """Score the validation tiles with the best network at several thresholds and minimum areas, and keep the best pair.

    It is the operating point of all results: of test tiles, pictures, tables and files, and, stored with the best
    checkpoint, of `sn6.predict`. The validation tiles themselves are scored at points that were chosen elsewhere: each
    half of them at the best pair of the other half, see `sn6.data.cross_fitting.cross_fit`. Validations while training
    keep the values of the config.

    Args:
        thresholds: probabilities; candidates
        min_areas: m²; candidates
    """

    def __init__(
        self,
        thresholds: Annotated[Sequence[Probability], Field(min_length=1)] = (0.5,),
        min_areas: Annotated[Sequence[NonNegativeFloat], Field(min_length=1)] = (20.0,),
    ) -> None:
        self.thresholds = sorted(set(thresholds))
        self.min_areas = sorted(set(min_areas))
        self.halves: tuple[Half, Half] | None = None  # of the indices of the validation tiles
        self.tables: dict[Pair, TileTable] = {}
        self.choice: Choice | None = None

    def on_predict_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Make an empty table for each pair."""
        self.dataset, self.config = trainer.predict_dataloaders.dataset, polygon_f1_of(trainer).options
        self.tables = {pair: TileTable(len(self.dataset)) for pair in product(self.thresholds, self.min_areas)}
        self.thread = ScoringThread(self._score)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Queue the tiles of a batch."""
        logits, valid = outputs["logits"][:, 0].float().cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        for i, index in enumerate(batch["index"].tolist()):
            self.thread.submit(index, logits[i], valid[i])
        self._record()

    def _score(self, index: int, logits: np.ndarray, valid: np.ndarray) -> tuple[int, dict[Pair, Counts]]:
        """Return the counts of a tile with all pairs."""
        counts = {}
        for threshold in self.thresholds:
            options = replace(self.config, threshold=threshold)
            results = score_tile(self.dataset, index, logits, valid, options, self.min_areas)
            for min_area, result in zip(self.min_areas, results, strict=True):
                counts[threshold, min_area] = result.match.counts
        return index, counts

    def _record(self, wait: bool = False) -> None:
        for index, counts in self.thread.results(wait):
            for pair, one in counts.items():
                self.tables[pair].enter(index, 0, 0, 0, one)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the best pairs, the same on all ranks, and give them to the score."""
        self._record(wait=True)
        for table in self.tables.values():
            table.to(pl_module.device).compute()
        self.choice = self.choose()
        if self.choice is not None:
            polygon_f1 = polygon_f1_of(trainer)
            polygon_f1.options, polygon_f1.cross_fitted = self.choice.point.options, self.choice.cross_fitted

    def choose(self) -> Choice | None:
        """Return the points of all tiles and of their halves; None where no pair matches a building."""
        assert self.halves is not None
        everything = np.concatenate([half.tiles for half in self.halves])
        point, *of_halves = (
            self.best_point(everything, 0),
            *(self.best_point(half.choosers, len(half.tiles)) for half in self.halves),
        )
        if point.f1 == 0:
            keep_config(f"no candidate matches a building of {counted(len(everything), 'validation tile')}")
            return None
        cross_fitted = {
            self.dataset.tiles[index]: one.options
            for half, one in zip(self.halves, of_halves, strict=True)
            for index in half.tiles
        }
        return Choice(point, tuple(of_halves), cross_fitted)

    def best_point(self, choosers: Int[np.ndarray, " n"], tiles: int) -> Point:
        """Return the pair with the highest F1 on the choosers; of equal ones that nearest to the config's values."""
        scores = {pair: pool(table.by_tile[torch.from_numpy(choosers)])["f1"] for pair, table in self.tables.items()}
        config = self.config

        def rank(pair: Pair) -> tuple[float, ...]:  # rounded: 0.4 and 0.6 are equally far from 0.5
            distance = round(abs(pair[0] - config.threshold), 9), round(abs(pair[1] - config.min_area), 9)
            return (-scores[pair], *distance, *pair)

        best = min(scores, key=rank)
        if scores[best] == 0:
            return Point(config, 0.0, len(choosers), tiles)
        return Point(replace(config, threshold=best[0], min_area=best[1]), scores[best], len(choosers), tiles)


def keep_config(reason: str) -> None:
    """Print why nothing was calibrated."""
    rank_zero_only(log.warning)("threshold and min_area of callbacks.polygon_f1 stay: %s", reason)


def calibrate(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str | None) -> Choice | None:
    """Calibrate with the network at `best`, or with the segmenter as it is where that is None.

    Returns:
        None where there is no such callback, or the config's values stay.
    """
    callback = next((one for one in trainer.callbacks if isinstance(one, Calibration)), None)
    if callback is None:
        return None
    tiles = datamodule.validation_tiles.tiles[: datamodule.scored_tiles("val")]
    callback.halves = cross_fit(bounds_of(tiles))
    if callback.halves is None:
        keep_config(f"{counted(len(tiles), 'validation tile')} cannot be cut into halves without common ground")
        return None
    trainer.predict(segmenter, datamodule=datamodule, return_predictions=False, ckpt_path=best)
    return callback.choice


def validate_calibrated(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str) -> None:
    """Validate the network at `best` at the operating points of the tiles, and write them to that checkpoint.

    Nothing is logged: the `val/...` of the training, which chose the epoch, stay the only points of their curves.
    """
    loggers, trainer.loggers = trainer.loggers, []
    profiler, trainer.profiler = trainer.profiler, PassThroughProfiler()  # torch's fails in a second validation
    trainer.validate(segmenter, datamodule, ckpt_path=best, verbose=False)
    trainer.loggers, trainer.profiler = loggers, profiler
    if trainer.is_global_zero:
        checkpoint, polygon_f1 = read_torch_file(Path(best)), polygon_f1_of(trainer)
        checkpoint["callbacks"][polygon_f1.state_key] |= polygon_f1.state_dict()
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, best)
    trainer.strategy.barrier()
