"""The challenge's score while training and after, and the footprints that it was made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer

from sn6.callbacks.tile_table import TileTable
from sn6.data.dataset import TileDataset
from sn6.footprints import Footprints, turn_polygons
from sn6.footprints.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.footprints.geojson import GeoJSONWriter
from sn6.footprints.matching import Match, match_tile
from sn6.footprints.polygonize import footprints_from_logits


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


class PolygonF1(Callback):
    """Logits → polygons → the score of SpaceNet 6, on every validation and test.

    Logs `val/f1`, `val/precision`, `val/recall`, `val/iou` (pixels, of valid ones) and `val/loss`, or `test/...`.
    After a test it leaves `proposals.csv` and `footprints.geojson` in the run's folder, and adds `ceiling_f1` to its
    `scores`: what a perfect binary mask reaches by the same way, which is less than 1 where houses share a wall.

    Args:
        threshold: a pixel is building when its logit is above
        min_area: m²; smaller components are no proposals
        simplify: m; how far an outline may leave the pixels' edges
    """

    def __init__(self, threshold: float = 0.0, min_area: float = 20.0, simplify: float = 0.5) -> None:
        self.threshold = threshold
        self.min_area = min_area
        self.simplify = simplify
        self.results: dict[int, TileResult] = {}  # of the last pass, by the tile's index, on this rank
        self.scores: dict[str, float] = {}  # of the last pass, the same on all ranks
        self.ceiling: TileTable | None = None  # of a test alone

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint holds the scores of its own validation."""
        return {"scores": self.scores}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the tables."""
        self._start(dataset_of(trainer.val_dataloaders), pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the tables."""
        self._start(dataset_of(trainer.test_dataloaders), pl_module)
        self.ceiling = TileTable(len(self.dataset)).to(pl_module.device)

    def _start(self, dataset: TileDataset, pl_module: LightningModule) -> None:
        self.dataset = dataset
        self.table = TileTable(len(dataset)).to(pl_module.device)
        self.ceiling = None
        self.results = {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Scores the tiles of a batch."""
        self._score(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """The same for the test tiles."""
        self._score(outputs, batch)

    def _score(self, outputs: Any, batch: Any) -> None:
        logits = outputs["logits"][:, 0].float().cpu().numpy()
        mask, valid = batch["mask"][:, 0].cpu().numpy() > 0, batch["valid"][:, 0].cpu().numpy()
        for i, (index, loss) in enumerate(zip(batch["index"].tolist(), outputs["losses"].tolist(), strict=True)):
            self.results[index] = result = self.score_tile(index, logits[i], valid[i])
            proposed, building = (logits[i] > self.threshold) & valid[i], mask[i] & valid[i]
            self.table.enter(index, loss, (proposed & building).sum(), (proposed | building).sum(), result.match.counts)
            if self.ceiling is not None:
                perfect = self.score_tile(index, np.where(mask[i], 1.0, -1.0) + self.threshold, valid[i])
                self.ceiling.enter(index, 0, 0, 0, perfect.match.counts)

    def score_tile(self, index: int, logits: np.ndarray, valid: np.ndarray) -> TileResult:
        """Polygons of a tile's logits (h, w), turned back into the tile's own frame, against all of its labels."""
        footprints = footprints_from_logits(logits, valid, self.threshold, self.min_area, self.simplify)
        if self.dataset.turned(index):
            footprints = Footprints(turn_polygons(footprints.polygons, *valid.shape), footprints.confidences)
        truth = self.dataset.labels(index).polygons
        return TileResult(footprints, truth, match_tile(truth, footprints.polygons, footprints.confidences))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pools the counts over tiles and ranks, and logs on every rank: the checkpoint watches them."""
        self.scores = self.table.compute()
        for key in ("f1", "precision", "recall", "iou", "loss"):
            pl_module.log(f"val/{key}", self.scores[key], prog_bar=key in ("f1", "loss"))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for the test tiles, with the ceiling."""
        assert self.ceiling is not None
        self.scores = self.table.compute()
        ceiling = self.ceiling.compute()
        self.scores |= {f"ceiling_{key}": ceiling[key] for key in ("f1", "precision", "recall")}
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


def polygon_f1_of(trainer: Any) -> PolygonF1:
    """The callback that scores, for those that show or keep its results."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, PolygonF1))


def dataset_of(loader: Any) -> TileDataset:
    """The tiles behind the one loader of a validation or test."""
    return loader.dataset
