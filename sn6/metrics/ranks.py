"""Exchange results between ranks."""

from typing import TypeVar

from torch import distributed

Result = TypeVar("Result")


def gather_by_tile(by_tile: dict[int, Result]) -> dict[int, Result]:
    """Return the results of the tiles of all ranks, the same on each, in the order of the tiles.

    Every rank must call it.

    Args:
        by_tile: number of a tile → its result on this rank
    """
    ranks = [by_tile]
    if distributed.is_available() and distributed.is_initialized():
        ranks = [{} for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(ranks, by_tile)
    return dict(sorted({index: result for rank in ranks for index, result in rank.items()}.items()))
