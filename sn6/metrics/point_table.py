"""Count each tile at several operating points, once on any rank and however often it is evaluated."""

from collections.abc import Sequence

import torch
from jaxtyping import Int, Int64
from torch import Tensor
from torchmetrics import Metric

from sn6.metrics.matching import Counts

UNSEEN = -1


class PointTable(Metric):
    """Collect true positives, false positives and false negatives of each tile at each operating point.

    Ranks are reduced by the maximum of each entry, as in `TileTable`.

    Args:
        tiles: number of tiles
        points: number of operating points

    Example:
        >>> table = PointTable(tiles=2, points=1)
        >>> table.enter(0, [Counts(2, 1, 0)])
        >>> table.compute()
        >>> table.pool(torch.tensor([0, 1]))
        [Counts(tp=2, fp=1, fn=0)]
    """

    higher_is_better = True
    full_state_update = False
    rows: Tensor
    by_tile: Tensor  # rows of all ranks, after `compute`

    def __init__(self, tiles: int, points: int) -> None:
        super().__init__()
        self.add_state("rows", torch.full((tiles, points, 3), UNSEEN, dtype=torch.int32), dist_reduce_fx="max")

    def update(self, index: int, counts: Int[Tensor, "points 3"]) -> None:
        """Set the row of a tile."""
        self.rows[index] = counts.to(self.rows)

    def enter(self, index: int, counts: Sequence[Counts]) -> None:
        """Set the row of a tile: its counts at each point."""
        self.update(index, torch.tensor([[one.tp, one.fp, one.fn] for one in counts]))

    def compute(self) -> None:
        """Reduce the rows over ranks."""
        self.by_tile = self.rows.cpu()

    def pool(self, tiles: Int64[Tensor, " n"]) -> list[Counts]:
        """Return the counts at each point, summed over those of the tiles that were seen."""
        rows = self.by_tile[tiles]
        summed = rows[rows[:, 0, 0] != UNSEEN].sum(dim=0)
        return [Counts(*counts) for counts in summed.tolist()]
