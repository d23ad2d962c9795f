"""Count each tile once, on any rank and however often it is evaluated."""

from dataclasses import asdict
from typing import SupportsFloat

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from sn6.metrics.matching import Counts

COLUMNS = ("loss", "intersection", "union", "tp", "fp", "fn")
UNSEEN = float("-inf")


class TileTable(Metric):
    """Collect one row per tile: loss, pixel intersection and union, true positives, false positives, false negatives.

    Ranks are reduced by the maximum of each entry: an entry is the same on every rank that computed it and UNSEEN on
    the others. A padded sampler may evaluate a tile twice, and a rank may evaluate none.

    Args:
        tiles: number of tiles

    Example:
        >>> table = TileTable(tiles=3)
        >>> table.update(torch.tensor([0, 2]), torch.tensor([[0.5, 10, 20, 1, 0, 1], [0.1, 5, 5, 1, 0, 0]]))
        >>> table.update(torch.tensor([2]), torch.tensor([[0.1, 5, 5, 1, 0, 0]]))  # evaluated twice, counted once
        >>> {key: round(table.compute()[key], 3) for key in ("loss", "iou", "f1", "tp", "fp", "fn", "scored_tiles")}
        {'loss': 0.3, 'iou': 0.6, 'f1': 0.8, 'tp': 2, 'fp': 0, 'fn': 1, 'scored_tiles': 2}
    """

    higher_is_better = True
    full_state_update = False
    rows: Tensor
    by_tile: Tensor  # rows of all ranks, after `compute`

    def __init__(self, tiles: int) -> None:
        super().__init__()
        # float32 represents the counts exactly: a tile has fewer than 2**24 pixels
        self.add_state("rows", torch.full((tiles, len(COLUMNS)), UNSEEN), dist_reduce_fx="max")

    def update(self, index: Int[Tensor, " n"], rows: Float[Tensor, "n 6"]) -> None:
        """Set the rows of tiles.

        Args:
            index: numbers of the tiles
            rows: values of COLUMNS
        """
        self.rows[index] = rows.to(self.rows)

    def enter(self, index: int, loss: float, intersection: SupportsFloat, union: SupportsFloat, counts: Counts) -> None:
        """Set the row of one tile."""
        row = [float(loss), float(intersection), float(union), counts.tp, counts.fp, counts.fn]
        self.update(torch.tensor([index]), torch.tensor([row]))

    def compute(self) -> dict[str, float]:
        """Compute the mean loss over tiles, and the scores from the counts pooled over tiles."""
        self.by_tile = self.rows.cpu()
        return pool(self.by_tile)


def pool(rows: Float[Tensor, "n 6"]) -> dict[str, float]:
    """Compute the mean loss over those rows of a table that are not UNSEEN, and the scores from their summed counts."""
    seen = rows[rows[:, 0] != UNSEEN].double()
    loss, intersection, union, tp, fp, fn = seen.sum(dim=0).tolist()
    counts = Counts(int(tp), int(fp), int(fn))
    return {
        "loss": loss / max(len(seen), 1),
        "iou": intersection / max(union, 1),
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        **asdict(counts),
        "scored_tiles": len(seen),
    }
