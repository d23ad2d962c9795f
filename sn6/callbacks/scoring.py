"""From the maps of a tile to its score: the one way for validation, test and calibration, in a thread."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Bool

from sn6.data.dataset import TileDataset
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.polygonizer import Maps, Polygonizer
from sn6.metrics.matching import Match, counted_area, match_tile

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
    dataset: TileDataset, index: int, maps: Maps, valid: Bool[np.ndarray, "h w"], polygonizer: Polygonizer
) -> TileResult:
    """Match the footprints of a tile with all of its labels.

    Args:
        dataset: of the tile
        index: of the tile in it
        maps: of the heads, in the sensor's frame
        valid: false on nodata
        polygonizer: from maps to footprints
    """
    pixel_size = dataset.source.product.grid
    footprints, truth = polygonizer(maps, valid, pixel_size), dataset.labels(index).polygons
    if dataset.is_rotated(index):
        footprints = replace(footprints, polygons=rotate_polygons(footprints.polygons, *valid.shape))
    match = match_tile(truth, footprints.polygons, footprints.confidences, counted_area(pixel_size))
    return TileResult(footprints, truth, match)


def maps_of_batch(outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Iterator[tuple[int, Maps, np.ndarray]]:
    """Yield the index, the maps and the valid pixels of each tile of a batch.

    Args:
        outputs: of a step of the segmenter, with `maps`: name of the head → tensor (b, k, h, w)
        batch: of the dataset
    """
    maps = {name: values.float().cpu().numpy() for name, values in outputs["maps"].items()}
    valid = batch["valid"][:, 0].cpu().numpy()
    for i, index in enumerate(batch["index"].tolist()):
        yield index, {name: values[i] for name, values in maps.items()}, valid[i]


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

    def cancel(self) -> None:
        """Score no more tiles: the process would wait for them before it ends."""
        self.thread.shutdown(wait=False, cancel_futures=True)
