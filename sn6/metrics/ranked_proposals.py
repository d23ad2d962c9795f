"""Rank the proposals of all tiles by confidence, on any rank and however often a tile is evaluated."""

import numpy as np
from jaxtyping import Bool, Float

from sn6.metrics.average_precision import average_precision
from sn6.metrics.ranks import gather_by_tile


class RankedProposals:
    """Collect the confidence of each proposal that counts, and whether it matches; each tile once, over all ranks."""

    def __init__(self) -> None:
        self.by_tile: dict[int, tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]] = {}

    def enter(self, index: int, confidences: Float[np.ndarray, " n"], matched: Bool[np.ndarray, " n"]) -> None:
        """Set the proposals of the tile number `index`."""
        self.by_tile[index] = confidences, matched

    def compute(self, buildings: int) -> float:
        """Return the average precision over the tiles of all ranks, the same on each; every rank must call it."""
        tiles = gather_by_tile(self.by_tile).values()
        if not tiles:
            return 0.0
        confidences, matched = (np.concatenate(values) for values in zip(*tiles, strict=True))
        return average_precision(confidences, matched, buildings)
