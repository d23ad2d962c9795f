"""The challenge's score: which proposal hits which building, and F1 over the pooled counts.

Source: the organisers' scorer as it behaves when run, whose areas are the shoelace's: outer ring minus holes.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from shapely.geometry.base import BaseGeometry

MIN_AREA = 80.0  # px², 20 m²: smaller polygons do not count
MIN_IOU = 0.5  # a hit lies over it


@dataclass(frozen=True)
class Counts:
    """True positives, false positives, false negatives; those of tiles are summed before F1 is taken."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """The share of the proposals that are hits; 0 where there is no proposal."""
        return self.tp / max(self.tp + self.fp, 1)

    @property
    def recall(self) -> float:
        """The share of the buildings that are found; 0 where there is no building."""
        return self.tp / max(self.tp + self.fn, 1)

    @property
    def f1(self) -> float:
        """2TP / (2TP + FP + FN); 0 where nothing is counted."""
        return 2 * self.tp / max(2 * self.tp + self.fp + self.fn, 1)


@dataclass(frozen=True, eq=False)
class Match:
    """What became of the polygons of one tile.

    Attributes:
        truth_of_proposal: the index of the building that each proposal took, -1 where it took none
        proposals_counted: false where a proposal is too small to count
        truths_counted: false where a building is too small to count
    """

    truth_of_proposal: Int64[np.ndarray, "proposals"]
    proposals_counted: Bool[np.ndarray, "proposals"]
    truths_counted: Bool[np.ndarray, "truths"]

    @property
    def hits(self) -> Bool[np.ndarray, "proposals"]:
        """The proposals that took a building: the true positives."""
        return self.truth_of_proposal >= 0

    @property
    def invented(self) -> Bool[np.ndarray, "proposals"]:
        """The proposals that count and took no building: the false positives."""
        return self.proposals_counted & ~self.hits

    @property
    def missed(self) -> Bool[np.ndarray, "truths"]:
        """The buildings that count and that no proposal took: the false negatives."""
        missed = self.truths_counted.copy()
        missed[self.truth_of_proposal[self.hits]] = False
        return missed

    @property
    def counts(self) -> Counts:
        """Of hits, invented and missed."""
        return Counts(int(self.hits.sum()), int(self.invented.sum()), int(self.missed.sum()))


def match_tile(
    truths: Shaped[np.ndarray, "truths"],
    proposals: Shaped[np.ndarray, "proposals"],
    confidences: Float[np.ndarray, "proposals"],
) -> Match:
    """Gives each proposal, in the order of falling confidence, the free building of the highest IoU.

    The proposal is a hit if that IoU is over 0.5. Of equal confidences the first goes first, of equal IoUs the
    first building is taken. Polygons of less than 80 px² do not take part, on either side.

    Args:
        truths: the tile's buildings, shapely Polygons in pixels, which may overlap one another
        proposals: shapely Polygons in pixels
        confidences: of the proposals, any real numbers
    """
    truths_counted = shapely.area(truths) >= MIN_AREA
    proposals_counted = shapely.area(proposals) >= MIN_AREA
    rank = np.empty(len(proposals), dtype=np.int64)
    rank[np.argsort(-confidences, kind="stable")] = np.arange(len(proposals))

    kept_proposals, kept_truths = np.flatnonzero(proposals_counted), np.flatnonzero(truths_counted)
    proposal, truth, iou = _overlapping_pairs(proposals[kept_proposals], truths[kept_truths])
    proposal, truth = kept_proposals[proposal], kept_truths[truth]
    truth_of_proposal = np.full(len(proposals), -1, dtype=np.int64)
    free = truths_counted.copy()
    for pair in np.lexsort((truth, -iou, rank[proposal])):
        if truth_of_proposal[proposal[pair]] < 0 and free[truth[pair]]:
            truth_of_proposal[proposal[pair]] = truth[pair]
            free[truth[pair]] = False
    return Match(truth_of_proposal, proposals_counted, truths_counted)


def _overlapping_pairs(
    proposals: Shaped[np.ndarray, " proposals"], truths: Shaped[np.ndarray, " truths"]
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """The pairs whose IoU is over 0.5: proposal, truth, IoU."""
    proposal, truth = shapely.STRtree(truths).query(proposals)
    areas = shapely.area(proposals)[proposal] + shapely.area(truths)[truth]
    proposal_boxes, truth_boxes = shapely.bounds(proposals)[proposal], shapely.bounds(truths)[truth]
    low, high = np.maximum(proposal_boxes, truth_boxes)[:, :2], np.minimum(proposal_boxes, truth_boxes)[:, 2:]
    # IoU > 1/2 says overlap > areas / 3, and the boxes overlap no less; 0.33 leaves room for rounding.
    near = (high - low).prod(axis=1) > 0.33 * areas
    proposal, truth, areas = proposal[near], truth[near], areas[near]
    overlaps = shapely.area(shapely.intersection(make_valid(proposals[proposal]), make_valid(truths[truth])))
    unions = areas - overlaps
    ious = np.divide(overlaps, unions, out=np.zeros_like(overlaps), where=unions > 0)
    over = ious > MIN_IOU
    return proposal[over], truth[over], ious[over]


def make_valid(polygons: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    """The polygons, an invalid one as what its outer ring fills (even-odd) less what its holes fill."""
    mended = polygons.copy()
    for i in np.flatnonzero(~shapely.is_valid(polygons)):
        outer, *holes = (_filled(ring) for ring in shapely.get_rings(polygons[i]))
        mended[i] = shapely.difference(outer, shapely.union_all(holes))
    return mended


def _filled(ring: shapely.LinearRing) -> BaseGeometry:
    """The ground inside a ring that may cross itself, without the lines and points that it may leave."""
    parts = shapely.get_parts(shapely.make_valid(shapely.polygons(ring)))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
