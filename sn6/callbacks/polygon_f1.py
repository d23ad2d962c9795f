"""The challenge's score in training and after it, and the footprints that it is computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import Field, NonNegativeFloat

from sn6.callbacks.scoring import ScoringThread, TileResult, score_tile
from sn6.data.dataset import TileDataset
from sn6.datasets.archive import Tile
from sn6.datasets.layout import CRS, PIXEL
from sn6.footprints import PolygonOptions
from sn6.footprints.polygonize import is_building
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.formats.geojson import GeoJSONWriter
from sn6.metrics.matching import Counts
from sn6.metrics.tile_table import COLUMNS, TileTable

Probability = Annotated[float, Field(gt=0, lt=1)]
ORACLE_MIN_AREA = 20.0  # m², that of the labels: the bound does not depend on the calibration


@dataclass(frozen=True)
class ScoredTile:
    """A tile with everything that is counted.

    Attributes:
        index: the tile's place in the list
        loss: its own
        intersection: pixels that are building and predicted as building
        union: pixels that are building or predicted as building
        result: at the tile's operating point
        oracle: counts of the ground-truth mask, only in a test
        curve: counts at the other thresholds, only in a test
    """

    index: int
    loss: float
    intersection: int
    union: int
    result: TileResult
    oracle: Counts | None
    curve: list[Counts]


class PolygonF1(Callback):
    """Turn logits into polygons and score them by the rules of SpaceNet 6, in every validation and test.

    Logs `val/f1`, `val/precision`, `val/recall`, `val/iou` (of valid pixels) and `val/loss`, or `test/...`. Tiles are
    scored in a thread, while the device computes the next ones.

    After a test it writes `proposals.csv` and `footprints.geojson` to the run's folder, and its `oracle` has the upper
    bound from the ground-truth mask, which is below 1 where buildings touch: at a minimum area of 20 m² always, so
    that runs are compared with the same bound.

    The operating point is that of the config, until `Calibration` sets `options`, the point of the network, and
    `cross_fitted`, the points of the tiles that helped to choose it: each was chosen on tiles elsewhere.

    Args:
        threshold: probability; a pixel above it is building
        min_area: m²; smaller components are dropped
        simplify: m; tolerance of the outlines
        curve: probabilities; thresholds at which a test is scored as well (diagnostic only)
    """

    logged: ClassVar = ("f1", "precision", "recall", "iou", "loss")

    def __init__(
        self,
        threshold: Probability = 0.5,
        min_area: NonNegativeFloat = 20.0,
        simplify: NonNegativeFloat = 0.5,
        curve: Sequence[Probability] = (),
    ) -> None:
        self.options = PolygonOptions(threshold, min_area, simplify)
        self.cross_fitted: Mapping[Tile, PolygonOptions] = {}
        self.curve_at = [float(probability) for probability in curve]
        self.results: dict[int, TileResult] = {}  # of the last pass, by the tile's index, on this rank
        self.scores: dict[str, float] = {}  # of the last pass, the same on all ranks
        self.oracle: dict[str, float] = {}  # of the last test, the same on all ranks: F1, precision, recall
        self.by_tile = torch.empty(0, len(COLUMNS))  # of the last pass, the same on all ranks: a row per tile
        self.curve: list[dict[str, float]] = []  # of the last test, the same on all ranks

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: the scores of its own validation, and the polygon options."""
        return {"scores": self.scores, "by_tile": self.by_tile, **asdict(self.options)}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empty the tables."""
        self._start(dataset_of(trainer.val_dataloaders), is_test=False)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empty the tables."""
        self._start(dataset_of(trainer.test_dataloaders), is_test=True)

    def _start(self, dataset: TileDataset, is_test: bool) -> None:
        self.dataset = dataset
        self.table = TileTable(len(dataset))
        self.oracle_table = TileTable(len(dataset)) if is_test else None
        self.curve_tables = [TileTable(len(dataset)) for _ in self.curve_at] if is_test else []
        self.results = {}
        self.thread = ScoringThread(self._score)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Queue the tiles of a batch."""
        self._submit(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Queue the tiles of a batch."""
        self._submit(outputs, batch)

    def _submit(self, outputs: Any, batch: Any) -> None:
        logits = outputs["logits"][:, 0].float().cpu().numpy()
        mask, valid = batch["mask"][:, 0].cpu().numpy() > 0, batch["valid"][:, 0].cpu().numpy()
        for i, (index, loss) in enumerate(zip(batch["index"].tolist(), outputs["losses"].tolist(), strict=True)):
            self.thread.submit(index, loss, logits[i], mask[i], valid[i])
        for tile in self.thread.results():
            self._record(tile)

    def _score(self, index: int, loss: float, logits: np.ndarray, mask: np.ndarray, valid: np.ndarray) -> ScoredTile:
        options = self.options_of(index)
        predicted, building = is_building(logits, options.threshold) & valid, mask & valid
        intersection, union = int((predicted & building).sum()), int((predicted | building).sum())
        result = self.score_tile(index, logits, valid, options)
        oracle = None
        if self.oracle_table is not None:
            truth = np.where(mask, np.float32(1), np.float32(-1))
            oracle = self.score_tile(index, truth, valid, oracle_options(options)).match.counts
        curve = [
            self.score_tile(index, logits, valid, replace(options, threshold=threshold)).match.counts
            for threshold, _ in zip(self.curve_at, self.curve_tables, strict=False)  # a validation has no tables
        ]
        return ScoredTile(index, loss, intersection, union, result, oracle, curve)

    def _record(self, tile: ScoredTile) -> None:
        self.results[tile.index] = tile.result
        self.table.enter(tile.index, tile.loss, tile.intersection, tile.union, tile.result.match.counts)
        if self.oracle_table is not None and tile.oracle is not None:
            self.oracle_table.enter(tile.index, 0, 0, 0, tile.oracle)
        for table, counts in zip(self.curve_tables, tile.curve, strict=True):
            table.enter(tile.index, 0, 0, 0, counts)

    def options_of(self, index: int) -> PolygonOptions:
        """Return the operating point of a tile of the current pass."""
        return self.cross_fitted.get(self.dataset.tiles[index], self.options)

    def score_tile(self, index: int, logits: np.ndarray, valid: np.ndarray, options: PolygonOptions) -> TileResult:
        """Match the footprints of a tile's logits (h, w) with all of its labels."""
        (result,) = score_tile(self.dataset, index, logits, valid, options, [options.min_area])
        return result

    def _finish(self, device: torch.device) -> None:
        """Wait for the last tiles, and pool the counts over tiles and ranks."""
        for tile in self.thread.results(wait=True):
            self._record(tile)
        self.scores = self.table.to(device).compute()
        self.by_tile = self.table.by_tile

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Score no more tiles: the process would wait for them before it ends."""
        if hasattr(self, "scorer"):
            self.scorer.shutdown(wait=False, cancel_futures=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores, on every rank: the checkpoint monitors them."""
        self._finish(pl_module.device)
        for key in self.logged:
            pl_module.log(f"val/{key}", self.scores[key], prog_bar=key in ("f1", "loss"))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of the test tiles, with the upper bound from the ground-truth mask and the curve."""
        self._finish(pl_module.device)
        assert self.oracle_table is not None
        oracle = self.oracle_table.to(pl_module.device).compute()
        self.oracle = {key: oracle[key] for key in ("f1", "precision", "recall")}
        self.curve = [
            {"threshold": threshold} | {key: scores[key] for key in ("f1", "precision", "recall")}
            for threshold, table in zip(self.curve_at, self.curve_tables, strict=True)
            for scores in [table.to(pl_module.device).compute()]
        ]
        for key in self.logged:
            pl_module.log(f"test/{key}", self.scores[key])
        pl_module.log("test/oracle_f1", self.oracle["f1"])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the proposals: each rank those of its tiles, which the first one joins in the order of the tiles."""
        folder, tiles = Path(trainer.default_root_dir), self.dataset.tiles
        corners = {tile.image_id: (tile.bounds[0], tile.bounds[3]) for tile in tiles}
        with ChallengeCSVWriter(folder / f"proposals.part{trainer.global_rank}.csv") as part:
            for index, result in self.results.items():
                part.write(tiles[index].image_id, corners[tiles[index].image_id], result.footprints)
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        parts = [folder / f"proposals.part{rank}.csv" for rank in range(trainer.world_size)]
        by_tile = {image_id: footprints for path in parts for image_id, footprints in read_proposals(path).items()}
        with (
            ChallengeCSVWriter(folder / "proposals.csv") as table,
            GeoJSONWriter(folder / "footprints.geojson", CRS, PIXEL) as collection,
        ):
            for image_id in (tile.image_id for tile in tiles if tile.image_id in by_tile):
                for writer in (table, collection):
                    writer.write(image_id, corners[image_id], by_tile[image_id])
        for path in parts:
            path.unlink()


def oracle_options(options: PolygonOptions) -> PolygonOptions:
    """Return the options for the ground-truth mask: the outlines of `options`, and every building that counts."""
    return replace(options, threshold=0.5, min_area=ORACLE_MIN_AREA)


def polygon_f1_of(trainer: Any) -> PolygonF1:
    """Return the callback that scores."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, PolygonF1))


def dataset_of(loader: Any) -> TileDataset:
    """Return the tiles behind the loader of a validation or test."""
    return loader.dataset
