"""Match the polygons of a tile or of any ground, with all that is measured of each pair and each polygon."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sn6.footprints import Footprints, Labels
from sn6.metrics.boundary_iou import boundary_ious
from sn6.metrics.instances import Instances, compare_instances
from sn6.metrics.matching import MIN_IOU, Match, make_valid, match_tile

BOUNDARY = 1.5  # m, the width of the band along an outline of which the boundary IoU is


@dataclass(frozen=True, eq=False)
class MatchedPolygons:
    """The polygons of a tile, or of any ground, after matching.

    Attributes:
        truth: ground truth buildings
        proposed: proposals
        match: of the proposals with the buildings
        instances: how the proposals divide the buildings
        boundary_ious: of each proposal with the building that it matches, 0 where it matches none
    """

    truth: Labels
    proposed: Footprints
    match: Match
    instances: Instances
    boundary_ious: Float64[np.ndarray, "proposals"]

    def part(self, truths: Int64[np.ndarray, "_"], proposals: Int64[np.ndarray, "_"]) -> "MatchedPolygons":
        """Return some of the polygons, as they are matched and divided among all.

        Args:
            truths: indices of buildings
            proposals: indices of proposals, with each one that matches one of these buildings and no other match
        """
        position = np.full(len(self.truth), -1)
        position[truths] = np.arange(len(truths))
        whole, truth_of_proposal = self.match, self.match.truth_of_proposal[proposals]
        match = Match(
            np.where(truth_of_proposal < 0, -1, position[truth_of_proposal]),
            whole.proposals_counted[proposals],
            whole.truths_counted[truths],
            whole.ious[proposals],
        )
        instances = Instances(
            self.instances.touching_truths[truths],
            self.instances.touching_proposals[proposals],
            self.instances.merged[proposals],
            self.instances.split[truths],
        )
        truth = Labels(self.truth.polygons[truths], self.truth.heights[truths])
        proposed = Footprints(self.proposed.polygons[proposals], self.proposed.confidences[proposals])
        return MatchedPolygons(truth, proposed, match, instances, self.boundary_ious[proposals])


def match_polygons(
    truth: Labels, proposed: Footprints, pixel_size: float, min_area: float, min_iou: float = MIN_IOU
) -> MatchedPolygons:
    """Match proposals with buildings, and measure the pairs; arguments as of `match_tile` and `compare_instances`."""
    match = match_tile(truth.polygons, proposed.polygons, proposed.confidences, min_area, min_iou)
    matched = match.true_positives
    ious = np.zeros(len(proposed))
    ious[matched] = boundary_ious(
        make_valid(proposed.polygons[matched]),
        make_valid(truth.polygons[match.truth_of_proposal[matched]]),
        BOUNDARY / pixel_size,
    )
    instances = compare_instances(truth.polygons, proposed.polygons, match, pixel_size)
    return MatchedPolygons(truth, proposed, match, instances, ious)
