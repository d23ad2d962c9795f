"""Count each tile once, on any rank and however often it is evaluated."""

from dataclasses import asdict, astuple
from typing import SupportsFloat

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from sn6.metrics.breakdown import rates
from sn6.metrics.instances import InstanceCounts
from sn6.metrics.matching import Counts

COUNTS = ("intersection", "union", "tp", "fp", "fn", "touching_tp", "touching_fp", "touching_fn", "merged", "split")
COLUMNS = ("loss", *COUNTS, "iou_sum")
UNSEEN = float("-inf")
NOT_COUNTED = InstanceCounts()  # where only F1 is of interest


class TileTable(Metric):
    """Collect one row per tile: loss, pixel intersection and union, and what is counted of its buildings.

    Ranks are reduced by the maximum of each entry: an entry is the same on every rank that computed it and UNSEEN on
    the others. A padded sampler may evaluate a tile twice, and a rank may evaluate none.

    Args:
        tiles: number of tiles

    Example:
        >>> table = TileTable(tiles=3)
        >>> table.enter(0, 0.5, 10, 20, Counts(1, 0, 1), InstanceCounts(Counts(1, 0, 1), iou_sum=0.75))
        >>> table.enter(2, 0.1, 5, 5, Counts(1, 0, 0), InstanceCounts(iou_sum=1))
        >>> table.enter(2, 0.1, 5, 5, Counts(1, 0, 0), InstanceCounts(iou_sum=1))  # evaluated twice, counted once
        >>> scores = table.compute()
        >>> {key: round(scores[key], 3) for key in ("loss", "iou", "f1", "tp", "fp", "fn", "scored_tiles")}
        {'loss': 0.3, 'iou': 0.6, 'f1': 0.8, 'tp': 2, 'fp': 0, 'fn': 1, 'scored_tiles': 2}
        >>> {key: round(scores[key], 3) for key in ("touching_f1", "alone_f1", "matched_iou", "pq")}
        {'touching_f1': 0.667, 'alone_f1': 1.0, 'matched_iou': 0.875, 'pq': 0.7}
    """

    higher_is_better = True
    full_state_update = False
    rows: Tensor
    by_tile: Tensor  # rows of all ranks, after `compute`

    def __init__(self, tiles: int) -> None:
        super().__init__()
        # float32 represents the counts exactly: a tile has fewer than 2**24 pixels
        self.add_state("rows", torch.full((tiles, len(COLUMNS)), UNSEEN), dist_reduce_fx="max")

    def update(self, index: Int[Tensor, " n"], rows: Float[Tensor, "n columns"]) -> None:
        """Set the rows of tiles.

        Args:
            index: numbers of the tiles
            rows: values of COLUMNS
        """
        self.rows[index] = rows.to(self.rows)

    def enter(
        self,
        index: int,
        loss: float,
        intersection: SupportsFloat,
        union: SupportsFloat,
        counts: Counts,
        instances: InstanceCounts = NOT_COUNTED,
    ) -> None:
        """Set the row of one tile."""
        row = [float(loss), float(intersection), float(union), *astuple(counts), *astuple(instances.touching)]
        self.update(torch.tensor([index]), torch.tensor([[*row, instances.merged, instances.split, instances.iou_sum]]))

    def compute(self) -> dict[str, float]:
        """Compute the mean loss over tiles, and the scores from the counts pooled over tiles."""
        self.by_tile = self.rows.cpu()
        return pool(self.by_tile)


def pool(rows: Float[Tensor, "n columns"]) -> dict[str, float]:
    """Compute the mean loss over those rows of a table that are not UNSEEN, and the scores from their summed counts."""
    seen = rows[rows[:, 0] != UNSEEN].double()
    loss, intersection, union, *sums, iou_sum = seen.sum(dim=0).tolist()
    tp, fp, fn, touching_tp, touching_fp, touching_fn, merged, split = map(int, sums)
    counts = Counts(tp, fp, fn)
    instances = InstanceCounts(Counts(touching_tp, touching_fp, touching_fn), merged, split, iou_sum)
    parts = {"touching": instances.touching, "alone": counts - instances.touching}
    return {
        "loss": loss / max(len(seen), 1),
        "iou": intersection / max(union, 1),
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        **asdict(counts),
        "scored_tiles": len(seen),
        **{f"{name}_{key}": value for name, part in parts.items() for key, value in rates(part).items()},
        **instances.scores(counts),
    }
