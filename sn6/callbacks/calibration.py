"""Choose the fields of the polygonizer on the validation tiles, after training."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import shapely
import torch
from jaxtyping import Int, Int32
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.profilers import PassThroughProfiler
from pydantic import Field

from sn6.callbacks.operating_point import Choice, Point, Scores, best_point, candidates_of, grid, grid_around
from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.callbacks.scoring import ScoringThread, maps_of_batch
from sn6.checkpoints.torch_file import read_torch_file
from sn6.data.cross_fitting import Half, cross_fit
from sn6.data.dataset import TileDataset
from sn6.data.folds import bounds_of
from sn6.datasets.layout import PIXEL
from sn6.errors import counted
from sn6.footprints.polygonizer import Maps, Polygonizer
from sn6.metrics.label_matching import match_labels
from sn6.metrics.matching import MIN_AREA, Counts
from sn6.metrics.point_table import PointTable
from sn6.targets.rasterize import rasterize_instances

log = logging.getLogger(__name__)


class Calibration(Callback):
    """Score the validation tiles with the best network at several operating points, and keep the best one.

    It is the operating point of all results: of test tiles, pictures, tables and files, and, stored with the best
    checkpoint, of `sn6.predict`. The validation tiles themselves are scored at points that were chosen elsewhere: each
    half of them at the best point of the other half, see `sn6.data.cross_fitting.cross_fit`. Validations while training
    keep the values of the config.

    Points are compared by the IoU of pixels, which is cheaper than that of polygons; what is reported is the polygon
    F1 at the chosen points. The polygonizer's own candidates are a coarse grid: a second pass over the tiles tries a
    finer one around the best point of each half, and of all tiles.

    Args:
        candidates: field of the polygonizer → values, all of whose combinations are tried; None tries the
            polygonizer's own, coarse to fine
    """

    def __init__(
        self,
        candidates: Annotated[
            Mapping[str, Annotated[Sequence[float], Field(min_length=1)]] | None, Field(min_length=1)
        ] = None,
    ) -> None:
        self.given = candidates
        self.halves: tuple[Half, Half] | None = None  # of the indices of the validation tiles
        self.points: list[Polygonizer] = []  # of the current pass
        self.tables: list[tuple[list[Polygonizer], PointTable]] = []  # of the passes
        self.choice: Choice | None = None

    @property
    def is_refining(self) -> bool:
        """Return whether the current pass is the finer one."""
        return len(self.tables) > 1

    def on_predict_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Make an empty table for the points of the pass."""
        self.dataset: TileDataset = trainer.predict_dataloaders.dataset
        self.tables.append((self.points, PointTable(len(self.dataset), len(self.points))))
        self.thread = ScoringThread(self._score)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Queue the tiles of a batch."""
        for index, maps, valid in maps_of_batch(outputs, batch):
            self.thread.submit(index, maps, valid)
        self._record()

    def _score(self, index: int, maps: Maps, valid: np.ndarray) -> tuple[int, list[Counts]]:
        """Return the counts of a tile at all points; buildings are divided once for all minimum areas."""
        truth, buildings = label_image(self.dataset, index, *valid.shape)
        counts: list[Counts] = []
        for polygonizer, points in groupby(self.points, lambda point: replace(point, min_area=0.0)):
            min_pixels = [point.min_area / PIXEL**2 for point in points]
            counts += match_labels(polygonizer.instances(maps, valid, PIXEL), truth, buildings, min_pixels)
        return index, counts

    def _record(self, wait: bool = False) -> None:
        for index, counts in self.thread.results(wait):
            self.tables[-1][1].enter(index, counts)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pool the counts over ranks."""
        self._record(wait=True)
        self.tables[-1][1].to(pl_module.device).compute()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Score no more tiles."""
        if hasattr(self, "thread"):
            self.thread.cancel()

    def scores(self, tiles: Int[np.ndarray, " n"]) -> Scores:
        """Return the counts of tiles at all points that were tried."""
        index = torch.from_numpy(tiles)
        return {
            point: counts
            for points, table in self.tables
            for point, counts in zip(points, table.pool(index), strict=True)
        }

    def search(self, predict: Callable[[], Any], config: Polygonizer) -> Choice | None:
        """Try the candidates on the tiles, and choose; None where none of them matches a building.

        Args:
            predict: passes the maps of all tiles to this callback
            config: polygonizer of the config
        """
        assert self.halves is not None
        candidates, self.tables = candidates_of(config, self.given), []
        fields, everything = tuple(candidates), np.concatenate([half.tiles for half in self.halves])
        choosers = [everything, *(half.choosers for half in self.halves)]
        self.points = grid(config, candidates)
        predict()
        tried = [self.points] * len(choosers)
        if self.given is None:
            coarse = [best_point(self.scores(tiles), config, fields) for tiles in choosers]
            finer = [grid_around(point, candidates) if point in self.points else [] for point in coarse]
            tried = [[*self.points, *points] for points in finer]
            new = {point for points in finer for point in points}.difference(self.points)
            self.points = sorted(new, key=attrgetter(*fields))
            if self.points:
                predict()
        if not any(counts.tp for counts in self.scores(everything).values()):
            keep_config(f"no candidate matches a building of {counted(len(everything), 'validation tile')}")
            return None
        sizes = [0, *(len(half.tiles) for half in self.halves)]
        points = [self._chosen(*one, config, fields) for one in zip(choosers, sizes, tried, strict=True)]
        cross_fitted = {
            self.dataset.tiles[index]: point.polygonizer
            for half, point in zip(self.halves, points[1:], strict=True)
            for index in half.tiles
        }
        return Choice(points[0], tuple(points[1:]), cross_fitted, fields, self.scores(everything))

    def _chosen(
        self,
        choosers: Int[np.ndarray, " n"],
        tiles: int,
        tried: list[Polygonizer],
        config: Polygonizer,
        fields: tuple[str, ...],
    ) -> Point:
        """Return the best of the points that were tried for the tiles that choose, to score `tiles` others."""
        scores = self.scores(choosers)
        best = best_point({point: scores[point] for point in tried}, config, fields)
        return Point(best, scores[best].f1 if best in tried else 0.0, len(choosers), tiles)


def label_image(dataset: TileDataset, index: int, height: int, width: int) -> tuple[Int32[np.ndarray, "h w"], int]:
    """Return the number of the building at each pixel of a tile, in the sensor's frame, and the number of buildings.

    Only buildings that are large enough to count are in it.
    """
    polygons = dataset.labels(index).polygons
    counted_ones = polygons[shapely.area(polygons) >= MIN_AREA]
    image = rasterize_instances(counted_ones, height, width)
    return image[::-1, ::-1] if dataset.is_rotated(index) else image, len(counted_ones)


def keep_config(reason: str) -> None:
    """Print why nothing was calibrated."""
    rank_zero_only(log.warning)("the fields of polygons stay: %s", reason)


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
    polygon_f1, profiler = polygon_f1_of(trainer), trainer.profiler

    def predict() -> None:
        trainer.predict(segmenter, datamodule=datamodule, return_predictions=False, ckpt_path=best)
        trainer.profiler = PassThroughProfiler()  # torch's fails in a second pass

    callback.choice = callback.search(predict, polygon_f1.polygonizer)
    trainer.profiler = profiler
    if callback.choice is not None:
        polygon_f1.polygonizer, polygon_f1.cross_fitted = (
            callback.choice.point.polygonizer,
            callback.choice.cross_fitted,
        )
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
