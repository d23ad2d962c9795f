"""The challenge's score while training and after, and the footprints that it was made from."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from sn6.data.dataset import TileDataset
from sn6.errors import UserError
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.polygonize import footprints_from_logits, is_building
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.formats.geojson import GeoJSONWriter
from sn6.metrics.matching import Counts, Match, match_tile
from sn6.metrics.tile_table import COLUMNS, TileTable

MAX_QUEUED = 8  # tiles that a device may be ahead of the thread that scores them


@dataclass(frozen=True)
class TileResult:
    """What came out of one tile, in the tile's own frame.

    Attributes:
        footprints: the proposals
        truth: every label polygon of the tile
        match: which of them met
    """

    footprints: Footprints
    truth: np.ndarray
    match: Match


@dataclass(frozen=True)
class Scored:
    """A tile with all that is counted of it.

    Attributes:
        index: the tile's place in the list
        loss: its own
        intersection: pixels that are building and proposed
        union: pixels that are building or proposed
        result: at the threshold
        ceiling: of the perfect binary mask, in a test
        curve: at the other thresholds, in a test
    """

    index: int
    loss: float
    intersection: int
    union: int
    result: TileResult
    ceiling: Counts | None
    curve: list[Counts]


class PolygonF1(Callback):
    """Logits → polygons → the score of SpaceNet 6, on every validation and test.

    Logs `val/f1`, `val/precision`, `val/recall`, `val/iou` (pixels, of valid ones) and `val/loss`, or `test/...`.
    The tiles are scored in a thread beside the device, which goes on with the next ones.

    After a test it leaves `proposals.csv` and `footprints.geojson` in the run's folder, and adds to its `scores`
    `ceiling_f1`: what a perfect binary mask reaches by the same way, which is less than 1 where houses share a wall.

    Args:
        threshold: probability; a pixel above it is building
        min_area: m²; smaller components are no proposals
        simplify: m; how far an outline may leave the pixels' edges
        curve: probabilities at which a test is scored as well, to look at and not to choose by
    """

    def __init__(
        self, threshold: float = 0.5, min_area: float = 20.0, simplify: float = 0.5, curve: Sequence[float] = ()
    ) -> None:
        self.threshold = threshold
        self.min_area = min_area
        self.simplify = simplify
        self.curve_at = [float(probability) for probability in curve]
        if not all(0 < probability < 1 for probability in self.curve_at):
            raise UserError(f"callbacks.polygon_f1.curve={list(curve)} does not do; probabilities lie between 0 and 1")
        self.results: dict[int, TileResult] = {}  # of the last pass, by the tile's index, on this rank
        self.scores: dict[str, float] = {}  # of the last pass, the same on all ranks
        self.by_tile = torch.empty(0, len(COLUMNS))  # likewise, a row a tile
        self.curve: list[dict[str, float]] = []  # of the last test, likewise
        self.waiting: deque[Future[Scored]] = deque()

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint holds the scores of its own validation, and how its logits became polygons."""
        how = {"threshold": self.threshold, "min_area": self.min_area, "simplify": self.simplify}
        return {"scores": self.scores, "by_tile": self.by_tile, **how}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the tables."""
        self._start(dataset_of(trainer.val_dataloaders), is_test=False)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the tables."""
        self._start(dataset_of(trainer.test_dataloaders), is_test=True)

    def _start(self, dataset: TileDataset, is_test: bool) -> None:
        self.dataset = dataset
        self.table = TileTable(len(dataset))
        self.ceiling = TileTable(len(dataset)) if is_test else None
        self.curve_tables = [TileTable(len(dataset)) for _ in self.curve_at] if is_test else []
        self.results = {}
        self.waiting.clear()
        self.scorer = ThreadPoolExecutor(1)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Has the tiles of a batch scored."""
        self._take(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """The same for the test tiles."""
        self._take(outputs, batch)

    def _take(self, outputs: Any, batch: Any) -> None:
        logits = outputs["logits"][:, 0].float().cpu().numpy()
        mask, valid = batch["mask"][:, 0].cpu().numpy() > 0, batch["valid"][:, 0].cpu().numpy()
        for i, (index, loss) in enumerate(zip(batch["index"].tolist(), outputs["losses"].tolist(), strict=True)):
            self.waiting.append(self.scorer.submit(self._score, index, loss, logits[i], mask[i], valid[i]))
        while len(self.waiting) > MAX_QUEUED:
            self._enter(self.waiting.popleft().result())

    def _score(self, index: int, loss: float, logits: np.ndarray, mask: np.ndarray, valid: np.ndarray) -> Scored:
        """One tile at the threshold; of a test also its perfect mask, and the tile at the other thresholds."""
        proposed, building = is_building(logits, self.threshold) & valid, mask & valid
        intersection, union = int((proposed & building).sum()), int((proposed | building).sum())
        result = self.score_tile(index, logits, valid, self.threshold)
        ceiling = None
        if self.ceiling is not None:
            ceiling = self.score_tile(index, np.where(mask, np.float32(1), np.float32(-1)), valid, 0.5).match.counts
        curve = [
            self.score_tile(index, logits, valid, probability).match.counts
            for probability, _ in zip(self.curve_at, self.curve_tables, strict=False)  # a validation has no curve
        ]
        return Scored(index, loss, intersection, union, result, ceiling, curve)

    def _enter(self, scored: Scored) -> None:
        self.results[scored.index] = scored.result
        self.table.enter(scored.index, scored.loss, scored.intersection, scored.union, scored.result.match.counts)
        if self.ceiling is not None and scored.ceiling is not None:
            self.ceiling.enter(scored.index, 0, 0, 0, scored.ceiling)
        for table, counts in zip(self.curve_tables, scored.curve, strict=True):
            table.enter(scored.index, 0, 0, 0, counts)

    def score_tile(self, index: int, logits: np.ndarray, valid: np.ndarray, threshold: float) -> TileResult:
        """The footprints of a tile's logits (h, w) against all of its labels."""
        footprints = footprints_of(self.dataset, index, logits, valid, threshold, self.min_area, self.simplify)
        truth = self.dataset.labels(index).polygons
        return TileResult(footprints, truth, match_tile(truth, footprints.polygons, footprints.confidences))

    def _finish(self, device: torch.device) -> None:
        """Waits for the last tiles, and pools the counts over tiles and ranks."""
        while self.waiting:
            self._enter(self.waiting.popleft().result())
        self.scorer.shutdown()
        self.scores = self.table.to(device).compute()
        self.by_tile = self.table.by_tile

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs on every rank: the checkpoint watches the scores."""
        self._finish(pl_module.device)
        for key in ("f1", "precision", "recall", "iou", "loss"):
            pl_module.log(f"val/{key}", self.scores[key], prog_bar=key in ("f1", "loss"))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for the test tiles, with the ceiling and the curve."""
        self._finish(pl_module.device)
        assert self.ceiling is not None
        ceiling = self.ceiling.to(pl_module.device).compute()
        self.scores |= {f"ceiling_{key}": ceiling[key] for key in ("f1", "precision", "recall")}
        self.curve = [
            {"threshold": probability} | {key: scores[key] for key in ("f1", "precision", "recall")}
            for probability, table in zip(self.curve_at, self.curve_tables, strict=True)
            for scores in [table.to(pl_module.device).compute()]
        ]
        for key in ("f1", "precision", "recall", "iou", "loss", "ceiling_f1"):
            pl_module.log(f"test/{key}", self.scores[key])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Each rank leaves the proposals of its tiles in a part, which the first one joins in the tiles' order."""
        folder = Path(trainer.default_root_dir)
        tiles = self.dataset.tiles
        corners = {tile.image_id: (tile.bounds[0], tile.bounds[3]) for tile in tiles}
        with ChallengeCSVWriter(folder / f"proposals.part{trainer.global_rank}.csv") as part:
            for index, result in self.results.items():
                part.write(tiles[index].image_id, corners[tiles[index].image_id], result.footprints)
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        parts = [folder / f"proposals.part{rank}.csv" for rank in range(trainer.world_size)]
        joined = {image_id: found for path in parts for image_id, found in read_proposals(path).items()}
        with (
            ChallengeCSVWriter(folder / "proposals.csv") as table,
            GeoJSONWriter(folder / "footprints.geojson") as collection,
        ):
            for image_id in (tile.image_id for tile in tiles if tile.image_id in joined):
                for writer in (table, collection):
                    writer.write(image_id, corners[image_id], joined[image_id])
        for path in parts:
            path.unlink()


def footprints_of(
    dataset: TileDataset,
    index: int,
    logits: np.ndarray,
    valid: np.ndarray,
    threshold: float,
    min_area: float,
    simplify: float,
) -> Footprints:
    """Polygons of a tile's logits (h, w), turned back into the tile's own frame; see PolygonF1 for the rest."""
    footprints = footprints_from_logits(logits, valid, threshold, min_area, simplify)
    if not dataset.turned(index):
        return footprints
    return Footprints(rotate_polygons(footprints.polygons, *valid.shape), footprints.confidences)


def polygon_f1_of(trainer: Any) -> PolygonF1:
    """The callback that scores, for those that show or keep its results."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, PolygonF1))


def dataset_of(loader: Any) -> TileDataset:
    """The tiles behind the one loader of a validation or test."""
    return loader.dataset
