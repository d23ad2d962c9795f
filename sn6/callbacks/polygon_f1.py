"""The challenge's score in training and after it, and the footprints that it is computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from sn6.callbacks.scoring import ScoringThread, TileResult, maps_of_batch, score_tile
from sn6.data.dataset import TileDataset
from sn6.datasets.declaration import Tile
from sn6.footprints import Footprints
from sn6.footprints.polygonizer import Maps, Polygonizer, Probability
from sn6.footprints.threshold import Threshold
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.writer import common_crs
from sn6.heads import CLASSES
from sn6.metrics.class_counts import ClassCounts, count_class
from sn6.metrics.instances import InstanceCounts, compare_instances
from sn6.metrics.matching import Counts
from sn6.metrics.ranked_proposals import RankedProposals
from sn6.metrics.tile_table import COLUMNS, TileTable

COMPONENTS = Threshold()
LOGGED_OF_CLASS = ("f1", "iou")
CLASS_SCORES = (*LOGGED_OF_CLASS, "precision", "recall", "tp", "fp", "fn")
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
        instances: what is counted of its buildings one by one
        oracle: counts of the ground-truth mask, only in a test
        curve: counts at the other thresholds, only in a test
        classes: what is counted of each class, where there are several
    """

    index: int
    loss: float
    intersection: int
    union: int
    result: TileResult
    instances: InstanceCounts
    oracle: Counts | None
    curve: list[Counts]
    classes: list[ClassCounts]


class PolygonF1(Callback):
    """Turn maps into polygons and score them by the rules of SpaceNet 6, in every validation and test.

    Logs `val/f1`, `val/precision`, `val/recall`, `val/iou` (of valid pixels) and `val/loss`, or `test/...`, and how the
    buildings are found one by one: `touching_recall` and `touching_f1` of those that touch others, `alone_recall` and
    `alone_f1`, the numbers `merged` and `split`, `matched_iou`, `pq` and `ap50`, see `sn6.metrics.instances` and
    `sn6.metrics.average_precision`; with several heads also the loss of each, `val/loss_NAME`; with several classes of
    buildings `val/f1_NAME` of the proposals and buildings of each class, and `val/iou_NAME` of the pixels whose most
    probable class it is. Tiles are scored in a thread, while the device computes the next ones.

    After a test it writes `proposals.csv` and `footprints.geojson` to the run's folder, and its `oracle` has the upper
    bound from the ground-truth mask, which is below 1 where buildings touch: at a minimum area of 20 m² always, so
    that runs are compared with the same bound.

    The operating point is that of the config, until `Calibration` sets `polygonizer`, the point of the network, and
    `cross_fitted`, the points of the tiles that helped to choose it: each was chosen on tiles elsewhere.

    Args:
        polygonizer: from maps to footprints
        curve: probabilities; thresholds at which a test is scored as well (diagnostic only)
    """

    logged: ClassVar = (
        *("f1", "precision", "recall", "iou", "loss"),
        *("touching_f1", "touching_recall", "alone_f1", "alone_recall"),
        *("merged", "split", "matched_iou", "pq", "ap50"),
    )
    minimized: ClassVar = ("loss", "merged", "split")  # of these, the ones that are better if lower

    def __init__(
        self,
        polygonizer: Polygonizer = COMPONENTS,
        curve: Sequence[Probability] = (),
    ) -> None:
        self.polygonizer = polygonizer
        self.cross_fitted: Mapping[Tile, Polygonizer] = {}
        self.curve_at = [float(probability) for probability in curve]
        self.results: dict[int, TileResult] = {}  # of the last pass, by the tile's index, on this rank
        self.scores: dict[str, float] = {}  # of the last pass, the same on all ranks
        self.oracle: dict[str, float] = {}  # of the last test, the same on all ranks: F1, precision, recall
        self.by_tile = torch.empty(0, len(COLUMNS))  # of the last pass, the same on all ranks: a row per tile
        self.curve: list[dict[str, float]] = []  # of the last test, the same on all ranks
        self.class_names: tuple[str, ...] = ()  # of the heads; none for one class
        self.class_scores: dict[str, dict[str, float]] = {}  # of the last pass, by class, the same on all ranks

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: the scores of its own validation, and the polygonizer."""
        return {
            "scores": self.scores,
            "classes": self.class_scores,
            "by_tile": self.by_tile,
            "polygons": self.polygonizer.to_dict(),
        }

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empty the tables."""
        self._start(dataset_of(trainer.val_dataloaders), pl_module, is_test=False)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empty the tables."""
        self._start(dataset_of(trainer.test_dataloaders), pl_module, is_test=True)

    def _start(self, dataset: TileDataset, segmenter: Any, is_test: bool) -> None:
        self.dataset = dataset
        self.table = TileTable(len(dataset))
        heads, self.class_names = list(segmenter.losses.heads), segmenter.losses.heads.class_names
        self.class_tables = [TileTable(len(dataset)) for _ in self.class_names]
        self.head_tables = {name: TileTable(len(dataset)) for name in heads} if len(heads) > 1 else {}
        self.oracle_table = TileTable(len(dataset)) if is_test else None
        self.curve_tables = [TileTable(len(dataset)) for _ in self.curve_at] if is_test else []
        self.ranked = RankedProposals()
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
        truth = batch["mask"][:, 0].cpu().numpy() > 0
        classes = batch[CLASSES][:, 0].cpu().numpy().astype(np.int64) if self.class_names else [None] * len(truth)
        tiles = zip(maps_of_batch(outputs, batch), outputs["losses"].tolist(), truth, classes, strict=True)
        for (index, maps, valid), loss, mask, class_map in tiles:
            self.thread.submit(index, loss, maps, mask, valid, class_map)
        for name, table in self.head_tables.items():
            for index, loss in zip(batch["index"].tolist(), outputs["losses_by_head"][name].tolist(), strict=True):
                table.enter(index, loss, 0, 0, Counts())
        for tile in self.thread.results():
            self._record(tile)

    def _score(
        self, index: int, loss: float, maps: Maps, mask: np.ndarray, valid: np.ndarray, class_map: np.ndarray | None
    ) -> ScoredTile:
        polygonizer = self.polygonizer_of(index)
        predicted, building = polygonizer.is_building(maps, valid), mask & valid
        intersection, union = int((predicted & building).sum()), int((predicted | building).sum())
        result = self.score_tile(index, maps, valid, polygonizer)
        pixel_size = self.dataset.source.product.grid
        instances = compare_instances(result.truth, result.footprints.polygons, result.match, pixel_size)
        oracle = None
        if self.oracle_table is not None:
            truth = {"mask": mask[None].astype(np.float32)}
            oracle = self.score_tile(index, truth, valid, oracle_polygonizer(polygonizer)).match.counts
        curve = [
            self.score_tile(index, maps, valid, replace(polygonizer, threshold=threshold)).match.counts
            for threshold, _ in zip(self.curve_at, self.curve_tables, strict=False)  # a validation has no tables
        ]
        classes = [] if class_map is None else self._count_classes(index, maps, class_map, valid, result.footprints)
        counts = instances.counts(result.match)
        return ScoredTile(index, loss, intersection, union, result, counts, oracle, curve, classes)

    def _count_classes(
        self, index: int, maps: Maps, truth: np.ndarray, valid: np.ndarray, footprints: Footprints
    ) -> list[ClassCounts]:
        predicted, labels = maps[CLASSES].argmax(axis=0), self.dataset.labels(index)
        return [
            count_class(number, predicted, truth, valid, footprints, labels, self.dataset.source.product.grid)
            for number, _ in enumerate(self.class_names, start=1)
        ]

    def _record(self, tile: ScoredTile) -> None:
        self.results[tile.index] = tile.result
        match, counted = tile.result.match, tile.result.match.proposals_counted
        self.table.enter(tile.index, tile.loss, tile.intersection, tile.union, match.counts, tile.instances)
        confidences = tile.result.footprints.confidences[counted]
        self.ranked.enter(tile.index, confidences, match.true_positives[counted])
        if self.oracle_table is not None and tile.oracle is not None:
            self.oracle_table.enter(tile.index, 0, 0, 0, tile.oracle)
        for table, counts in zip(self.curve_tables, tile.curve, strict=True):
            table.enter(tile.index, 0, 0, 0, counts)
        for table, one in zip(self.class_tables, tile.classes, strict=True):
            table.enter(tile.index, 0, one.intersection, one.union, one.counts)

    def polygonizer_of(self, index: int) -> Polygonizer:
        """Return the operating point of a tile of the current pass."""
        return self.cross_fitted.get(self.dataset.tiles[index], self.polygonizer)

    def score_tile(self, index: int, maps: Maps, valid: np.ndarray, polygonizer: Polygonizer) -> TileResult:
        """Match the footprints of a tile's maps with all of its labels."""
        return score_tile(self.dataset, index, maps, valid, polygonizer)

    def _finish(self, pl_module: LightningModule, prefix: str) -> None:
        """Wait for the last tiles, pool the counts over tiles and ranks, and log the losses of the heads."""
        device = pl_module.device
        for tile in self.thread.results(wait=True):
            self._record(tile)
        scores = self.table.to(device).compute()
        self.scores = scores | {"ap50": self.ranked.compute(int(scores["tp"] + scores["fn"]))}
        self.by_tile = self.table.by_tile
        for name, table in self.head_tables.items():
            pl_module.log(f"{prefix}/loss_{name}", table.to(device).compute()["loss"])
        pooled = [table.to(device).compute() for table in self.class_tables]
        self.class_scores = {
            name: {key: one[key] for key in CLASS_SCORES} for name, one in zip(self.class_names, pooled, strict=True)
        }
        for name, one in self.class_scores.items():
            pl_module.log_dict({f"{prefix}/{key}_{name}": one[key] for key in LOGGED_OF_CLASS})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Score no more tiles."""
        if hasattr(self, "thread"):
            self.thread.cancel()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores, on every rank: the checkpoint monitors them."""
        self._finish(pl_module, "val")
        for key in self.logged:
            pl_module.log(f"val/{key}", self.scores[key], prog_bar=key in ("f1", "loss"))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of the test tiles, with the upper bound from the ground-truth mask and the curve."""
        self._finish(pl_module, "test")
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
        data_set = self.dataset.data_set
        crs = common_crs(tile.crs or data_set.crs for tile in tiles)
        names = self.class_names
        with ChallengeCSVWriter(folder / f"proposals.part{trainer.global_rank}.csv", names) as part:
            for index, result in self.results.items():
                part.write(tiles[index].image_id, tiles[index].corner, result.footprints)
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        parts = [folder / f"proposals.part{rank}.csv" for rank in range(trainer.world_size)]
        by_tile = {
            image_id: footprints for path in parts for image_id, footprints in read_proposals(path, names).items()
        }
        with (
            ChallengeCSVWriter(folder / "proposals.csv", names) as table,
            GeoJSONWriter(folder / "footprints.geojson", crs, data_set.pixel_size, names) as collection,
        ):
            for tile in (tile for tile in tiles if tile.image_id in by_tile):
                footprints = by_tile[tile.image_id]
                table.write(tile.image_id, tile.corner, footprints)
                collection.write(tile.image_id, tile.corner, footprints, tile.crs or data_set.crs)
        for path in parts:
            path.unlink()


def oracle_polygonizer(polygonizer: Polygonizer) -> Threshold:
    """Return the polygonizer for the ground-truth mask: the outlines of another, and every building that counts."""
    return Threshold(min_area=ORACLE_MIN_AREA, simplify=polygonizer.simplify)


def polygon_f1_of(trainer: Any) -> PolygonF1:
    """Return the callback that scores."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, PolygonF1))


def dataset_of(loader: Any) -> TileDataset:
    """Return the tiles behind the loader of a validation or test."""
    return loader.dataset
