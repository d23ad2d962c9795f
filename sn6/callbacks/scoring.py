"""From the logits of a tile to its score: the one way for validation, test and calibration, in a thread."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

import numpy as np

from sn6.data.dataset import TileDataset
from sn6.datasets.layout import PIXEL
from sn6.footprints import Footprints, PolygonOptions, rotate_polygons
from sn6.footprints.polygonize import footprints_by_min_area
from sn6.metrics.matching import Match, match_tile

MAX_QUEUED = 8  # tiles that a device may be ahead of the thread that scores them
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class TileResult:
    """The score of one tile, in the tile's own frame.

    Attributes:
        footprints: the proposals
        truth: every label polygon of the tile
        match: which proposal matches which building
    """

    footprints: Footprints
    truth: np.ndarray
    match: Match


def score_tile(
    dataset: TileDataset,
    index: int,
    logits: np.ndarray,
    valid: np.ndarray,
    options: PolygonOptions,
    min_areas: Sequence[float],
) -> list[TileResult]:
    """Match the footprints of a tile's logits (h, w) with all of its labels, for each minimum area.

    Args:
        dataset: of the tile
        index: of the tile in it
        logits: of the class building, in the sensor's frame
        valid: false on nodata
        options: threshold and tolerance; its minimum area is not used
        min_areas: m²
    """
    results, truth = [], dataset.labels(index).polygons
    for footprints in footprints_by_min_area(logits, valid, options, min_areas, PIXEL):
        if dataset.is_rotated(index):
            rotated = rotate_polygons(footprints.polygons, *valid.shape)
            footprints = Footprints(rotated, footprints.confidences)
        results.append(TileResult(footprints, truth, match_tile(truth, footprints.polygons, footprints.confidences)))
    return results


class ScoringThread(Generic[P, T]):
    """Score tiles in a thread, while the device computes the next ones.

    Args:
        score: computes the result of a tile
    """

    def __init__(self, score: Callable[P, T]) -> None:
        self.score = score
        self.queue: deque[Future[T]] = deque()
        self.thread = ThreadPoolExecutor(1)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue a tile."""
        self.queue.append(self.thread.submit(self.score, *args, **kwargs))

    def results(self, wait: bool = False) -> Iterator[T]:
        """Yield the results of the first tiles in their order: until few are left, or all of them with `wait`."""
        while len(self.queue) > (0 if wait else MAX_QUEUED):
            yield self.queue.popleft().result()
        if wait:
            self.thread.shutdown()
