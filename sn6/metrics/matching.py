"""Match proposals with buildings by the rules of the challenge, and compute F1 from pooled counts.

Source: the organisers' scorer as it behaves when run; its areas follow the shoelace formula, outer ring minus holes.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from shapely.geometry.base import BaseGeometry

MIN_AREA = 20.0  # m²; smaller polygons do not count
CHALLENGE_MIN_AREA = 80.0  # px², the same at the challenge's pixel size of 0.5 m
MIN_IOU = 0.5  # a match must be above it


@dataclass(frozen=True)
class Counts:
    """True positives, false positives, false negatives; summed over tiles before F1 is computed."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.tp - other.tp, self.fp - other.fp, self.fn - other.fn)

    @property
    def precision(self) -> float:
        """Return TP / (TP + FP): the fraction of the proposals that match; 0 where there is no proposal."""
        return self.tp / max(self.tp + self.fp, 1)

    @property
    def recall(self) -> float:
        """Return TP / (TP + FN): the fraction of the buildings that are matched; 0 where there is no building."""
        return self.tp / max(self.tp + self.fn, 1)

    @property
    def f1(self) -> float:
        """Return 2TP / (2TP + FP + FN); 0 where nothing is counted."""
        return 2 * self.tp / max(2 * self.tp + self.fp + self.fn, 1)


@dataclass(frozen=True, eq=False)
class Match:
    """The matched and unmatched polygons of one tile.

    Attributes:
        truth_of_proposal: index of the building that each proposal matches, -1 where it matches none
        proposals_counted: false where a proposal is too small to count
        truths_counted: false where a building is too small to count
        ious: IoU of each proposal with the building that it matches, 0 where it matches none
    """

    truth_of_proposal: Int64[np.ndarray, "proposals"]
    proposals_counted: Bool[np.ndarray, "proposals"]
    truths_counted: Bool[np.ndarray, "truths"]
    ious: Float64[np.ndarray, "proposals"]

    @property
    def true_positives(self) -> Bool[np.ndarray, "proposals"]:
        """Return which proposals match a building."""
        return self.truth_of_proposal >= 0

    @property
    def false_positives(self) -> Bool[np.ndarray, "proposals"]:
        """Return which proposals count and match no building."""
        return self.proposals_counted & ~self.true_positives

    @property
    def false_negatives(self) -> Bool[np.ndarray, "truths"]:
        """Return which buildings count and are matched by no proposal."""
        unmatched = self.truths_counted.copy()
        unmatched[self.truth_of_proposal[self.true_positives]] = False
        return unmatched

    @property
    def counts(self) -> Counts:
        """Return the numbers of true positives, false positives and false negatives."""
        return Counts(int(self.true_positives.sum()), int(self.false_positives.sum()), int(self.false_negatives.sum()))


def counted_area(pixel_size: float) -> float:
    """Return the area in px² from which polygons count where a pixel has this size in m."""
    return MIN_AREA / pixel_size**2


def match_tile(
    truths: Shaped[np.ndarray, "truths"],
    proposals: Shaped[np.ndarray, "proposals"],
    confidences: Float[np.ndarray, "proposals"],
    min_area: float = CHALLENGE_MIN_AREA,
    min_iou: float = MIN_IOU,
) -> Match:
    """Match each proposal, in order of decreasing confidence, with the unmatched building of the highest IoU.

    Proposals of equal confidence, or of an unknown one (NaN), are matched in their order; of buildings with equal IoU
    the first is matched.

    Args:
        truths: the tile's buildings, shapely Polygons in pixels, which may overlap each other
        proposals: shapely Polygons in pixels
        confidences: of the proposals, any real numbers
        min_area: px²; smaller polygons are left out on both sides
        min_iou: the IoU of a match is above it
    """
    truths_counted = shapely.area(truths) >= min_area
    proposals_counted = shapely.area(proposals) >= min_area
    rank = np.empty(len(proposals), dtype=np.int64)
    rank[np.argsort(-confidences, kind="stable")] = np.arange(len(proposals))

    kept_proposals, kept_truths = np.flatnonzero(proposals_counted), np.flatnonzero(truths_counted)
    proposal, truth, iou = _overlapping_pairs(proposals[kept_proposals], truths[kept_truths], min_iou)
    proposal, truth = kept_proposals[proposal], kept_truths[truth]
    truth_of_proposal = np.full(len(proposals), -1, dtype=np.int64)
    ious, free = np.zeros(len(proposals)), truths_counted.copy()
    for pair in np.lexsort((truth, -iou, rank[proposal])):
        if truth_of_proposal[proposal[pair]] < 0 and free[truth[pair]]:
            truth_of_proposal[proposal[pair]], ious[proposal[pair]] = truth[pair], iou[pair]
            free[truth[pair]] = False
    return Match(truth_of_proposal, proposals_counted, truths_counted, ious)


def duplicates(polygons: Shaped[np.ndarray, "n"], min_iou: float = MIN_IOU) -> Bool[np.ndarray, "n"]:
    """Return which polygons have an IoU above `min_iou` with an earlier one."""
    one, other = shapely.STRtree(polygons).query(polygons)
    later, _, _ = _pairs_above(min_iou, polygons, polygons, one[one > other], other[one > other])
    return np.isin(np.arange(len(polygons)), later)


def _overlapping_pairs(
    proposals: Shaped[np.ndarray, " proposals"], truths: Shaped[np.ndarray, " truths"], min_iou: float
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return the pairs whose IoU is above `min_iou`: proposal, building, IoU."""
    return _pairs_above(min_iou, proposals, truths, *shapely.STRtree(truths).query(proposals))


def _pairs_above(
    min_iou: float,
    proposals: Shaped[np.ndarray, " proposals"],
    truths: Shaped[np.ndarray, " truths"],
    proposal: Int64[np.ndarray, " candidates"],
    truth: Int64[np.ndarray, " candidates"],
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return those of the candidate pairs whose IoU is above `min_iou`: proposal, building, IoU."""
    areas = shapely.area(proposals)[proposal] + shapely.area(truths)[truth]
    proposal_boxes, truth_boxes = shapely.bounds(proposals)[proposal], shapely.bounds(truths)[truth]
    low, high = np.maximum(proposal_boxes, truth_boxes)[:, :2], np.minimum(proposal_boxes, truth_boxes)[:, 2:]
    # IoU > t means overlap > areas · t / (1 + t), and the boxes overlap by at least as much; 0.99 is for rounding.
    near = (high - low).prod(axis=1) > 0.99 * min_iou / (1 + min_iou) * areas
    proposal, truth, areas = proposal[near], truth[near], areas[near]
    overlaps = shapely.area(shapely.intersection(make_valid(proposals[proposal]), make_valid(truths[truth])))
    unions = areas - overlaps
    ious = np.divide(overlaps, unions, out=np.zeros_like(overlaps), where=unions > 0)
    over = ious > min_iou
    return proposal[over], truth[over], ious[over]


def make_valid(polygons: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    """Repair invalid polygons: the area inside the outer ring by the even-odd rule, minus that inside the holes."""
    repaired = polygons.copy()
    for i in np.flatnonzero(~shapely.is_valid(polygons)):
        outer, *holes = (_filled(ring) for ring in shapely.get_rings(polygons[i]))
        repaired[i] = shapely.difference(outer, shapely.union_all(holes))
    return repaired


def _filled(ring: shapely.LinearRing) -> BaseGeometry:
    """Return the area inside a ring that may cross itself, without the lines and points that a repair may leave."""
    parts = shapely.get_parts(shapely.make_valid(shapely.polygons(ring)))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
