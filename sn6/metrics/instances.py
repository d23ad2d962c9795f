"""Measure whether buildings are found one by one: those that touch others, merged and split ones, panoptic quality."""

from dataclasses import dataclass, field

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64, Shaped

from sn6.metrics.matching import Counts, Match, make_valid

TOUCHING = 0.5  # m; at most this far from another building, a building touches it
MOST = 0.5  # of an area; a part must be above it to be most of the area


@dataclass(frozen=True)
class InstanceCounts:
    """What is counted of the buildings of a tile one by one; summed over tiles before a score is computed.

    Attributes:
        touching: counts of the buildings that touch others; those of the buildings that stand alone are the rest
        merged: number of proposals that merge buildings
        split: number of buildings that are split
        iou_sum: sum of the IoU of the matched pairs
    """

    touching: Counts = field(default_factory=Counts)
    merged: int = 0
    split: int = 0
    iou_sum: float = 0.0

    def __add__(self, other: "InstanceCounts") -> "InstanceCounts":
        touching, iou_sum = self.touching + other.touching, self.iou_sum + other.iou_sum
        return InstanceCounts(touching, self.merged + other.merged, self.split + other.split, iou_sum)

    def scores(self, counts: Counts) -> dict[str, float]:
        """Return the numbers of merging proposals and split buildings, `matched_iou` and `pq`; 0 where nothing matches.

        `matched_iou` is the mean IoU of the matched pairs. `pq` is the panoptic quality of one class: the sum of these
        IoU / (TP + FP/2 + FN/2), which is their mean times F1. The pairs are those of the challenge's rules, which
        differ from the source's only where polygons of one side overlap each other.

        Args:
            counts: of all buildings of the same tiles

        Source: Kirillov, He, Girshick, Rother, Dollár 2019, Panoptic Segmentation, equations 1 and 2.
        """
        matched_iou = self.iou_sum / max(counts.tp, 1)
        return {"merged": self.merged, "split": self.split, "matched_iou": matched_iou, "pq": matched_iou * counts.f1}


@dataclass(frozen=True, eq=False)
class Instances:
    """How the proposals of a tile divide its buildings. Only polygons that are large enough count, on both sides.

    Attributes:
        touching_truths: buildings that are at most `TOUCHING` from another label polygon of the tile, of any size; all
            other buildings stand alone
        touching_proposals: proposals that count with the buildings that touch others: a true positive counts with the
            building that it matches, a false positive with the label polygon that it overlaps most, of equal ones the
            first. A false positive that overlaps none counts with the buildings that stand alone. So each true
            positive, false positive and false negative of the tile is in exactly one of the two parts
        merged: proposals that cover most of each of two or more buildings
        split: buildings that contain most of each of two or more proposals, which together cover most of the building
    """

    touching_truths: Bool[np.ndarray, "truths"]
    touching_proposals: Bool[np.ndarray, "proposals"]
    merged: Bool[np.ndarray, "proposals"]
    split: Bool[np.ndarray, "truths"]

    def counts(self, match: Match) -> InstanceCounts:
        """Count a tile.

        Args:
            match: of the same polygons
        """
        touching = Counts(
            int((match.true_positives & self.touching_proposals).sum()),
            int((match.false_positives & self.touching_proposals).sum()),
            int((match.false_negatives & self.touching_truths).sum()),
        )
        return InstanceCounts(touching, int(self.merged.sum()), int(self.split.sum()), float(match.ious.sum()))


def compare_instances(
    truths: Shaped[np.ndarray, "truths"],
    proposals: Shaped[np.ndarray, "proposals"],
    match: Match,
    pixel_size: float,
) -> Instances:
    """Find the buildings of a tile that touch others, and those that are merged or split.

    Args:
        truths: all label polygons of the tile, shapely Polygons in pixels
        proposals: shapely Polygons in pixels
        match: of the proposals with the buildings
        pixel_size: m
    """
    truths, proposals = make_valid(truths), make_valid(proposals)
    proposal, truth, overlap = _overlaps(proposals, truths)
    touches = touching(truths, TOUCHING / pixel_size)

    part = np.full(len(proposals), -1)  # the label polygon that each proposal overlaps most
    by_overlap = np.lexsort((-truth, overlap))  # the last one stays: that of the largest overlap, of these the first
    part[proposal[by_overlap]] = truth[by_overlap]
    part = np.where(match.true_positives, match.truth_of_proposal, part)
    touching_proposals = np.zeros(len(proposals), dtype=bool)
    touching_proposals[part >= 0] = touches[part[part >= 0]]

    counted = match.proposals_counted[proposal] & match.truths_counted[truth]
    covered = counted & (overlap > MOST * shapely.area(truths)[truth])
    inside = counted & (overlap > MOST * shapely.area(proposals)[proposal])
    pieces = np.bincount(truth[inside], minlength=len(truths))
    area = np.bincount(truth[inside], weights=overlap[inside], minlength=len(truths))
    return Instances(
        touches & match.truths_counted,
        touching_proposals & match.proposals_counted,
        np.bincount(proposal[covered], minlength=len(proposals)) > 1,
        (pieces > 1) & (area > MOST * shapely.area(truths)),
    )


def touching(polygons: Shaped[np.ndarray, "n"], distance: float) -> Bool[np.ndarray, "n"]:
    """Return which polygons are at most `distance` from another one."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=distance)
    touches = np.zeros(len(polygons), dtype=bool)
    touches[one[one != other]] = True
    return touches


def _overlaps(
    proposals: Shaped[np.ndarray, " proposals"], truths: Shaped[np.ndarray, " truths"]
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return the pairs that overlap: proposal, building, area of the overlap in px²."""
    proposal, truth = shapely.STRtree(truths).query(proposals)
    overlap = shapely.area(shapely.intersection(proposals[proposal], truths[truth]))
    return proposal[overlap > 0], truth[overlap > 0], overlap[overlap > 0]
