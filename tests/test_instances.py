"""Buildings one by one: those that touch others, merged and split ones; by hand and against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
from shapely import Point, Polygon, box

from benchmarks.street_map import shifted, street_map
from sn6.metrics.instances import InstanceCounts, Instances, compare_instances
from sn6.metrics.matching import Counts, Match, match_tile

PIXEL = 0.5  # m
ROW = [box(0, 0, 20, 20), box(20, 0, 40, 20), box(40, 0, 60, 20)]  # three row houses
LONE = box(200, 200, 220, 220)


def compare(truths: list[Polygon], proposals: list[Polygon], pixel_size: float = PIXEL) -> tuple[Instances, Match]:
    truths, proposals = np.array(truths, dtype=object), np.array(proposals, dtype=object)
    match = match_tile(truths, proposals, np.linspace(1, 0.5, len(proposals)))
    return compare_instances(truths, proposals, match, pixel_size), match


def counts(truths: list[Polygon], proposals: list[Polygon]) -> InstanceCounts:
    instances, match = compare(truths, proposals)
    return instances.counts(match)


def test_the_ious_are_those_of_the_matched_pairs():
    _, match = compare([*ROW, LONE], [box(0, 0, 20, 16), box(100, 0, 120, 20), LONE])
    assert match.ious == pytest.approx([320 / 400, 0, 1])


@pytest.mark.parametrize(
    ("gap", "pixel_size", "touch"),
    [(0, 0.5, True), (1, 0.5, True), (1.01, 0.5, False), (1, 0.6, False), (-3, 0.5, True)],
)
def test_buildings_within_half_a_metre_touch(gap, pixel_size, touch):
    instances, _ = compare([box(0, 0, 20, 20), box(20 + gap, 0, 40, 20)], [], pixel_size)
    assert instances.touching_truths.tolist() == [touch, touch]


def test_a_diagonal_touch_and_a_building_in_the_court_of_another():
    court = Polygon(box(0, 0, 60, 60).exterior, [box(20, 20, 40, 40).exterior])
    instances, _ = compare([box(100, 100, 120, 120), box(120, 120, 140, 140), court, box(24, 24, 36, 36)], [])
    assert instances.touching_truths.tolist() == [True, True, False, False]  # 2 m between the court and its building


def test_a_shed_too_small_to_count_still_touches_its_house():
    instances, match = compare([box(0, 0, 20, 20), box(20, 0, 25, 5)], [])
    assert instances.touching_truths.tolist() == [True, False]  # the shed itself does not count
    assert instances.counts(match).touching == Counts(fn=1)


def test_a_row_of_houses_proposed_as_one():
    """It matches none of three houses and merges them; it is the only false positive where buildings touch."""
    assert counts([*ROW, LONE], [box(0, 0, 60, 20), LONE]) == InstanceCounts(Counts(0, 1, 3), merged=1, iou_sum=1)


def test_a_proposal_may_match_one_building_and_merge_another():
    shed = box(20, 0, 28, 12)
    merged = counts([box(0, 0, 20, 20), shed], [box(0, 0, 28, 20)])
    assert merged == InstanceCounts(Counts(1, 0, 1), merged=1, iou_sum=400 / 560)


def test_half_of_a_building_is_not_most_of_it():
    assert counts(ROW[:2], [box(0, 0, 30, 20)]).merged == 0
    assert counts(ROW[:2], [box(0, 0, 30.1, 20)]).merged == 1


def test_a_building_in_two_pieces_is_split():
    halves = [box(200, 200, 209, 220), box(211, 200, 220, 220)]
    assert counts([LONE, ROW[0]], halves) == InstanceCounts(split=1)
    assert counts([LONE], [*halves[:1], box(211, 200, 240, 220)]).split == 0  # the other is mostly outside
    assert counts([box(0, 0, 100, 100)], [box(0, 0, 40, 40), box(60, 60, 100, 100)]).split == 0  # 32% together
    assert counts([box(0, 0, 100, 100)], [box(0, 0, 60, 45), box(0, 50, 60, 95)]).split == 1  # 54% together


def test_a_split_building_may_be_matched():
    assert counts([LONE], [box(200, 200, 220, 214), box(200, 215, 220, 220)]) == InstanceCounts(split=1, iou_sum=0.7)


def test_polygons_too_small_to_count_neither_merge_nor_split():
    small = [box(0, 0, 8, 9), box(8, 0, 16, 9)]
    assert counts(small, [box(0, 0, 16, 9)]) == InstanceCounts(Counts(fp=1))
    assert counts([box(0, 0, 16, 9)], small).split == 0


def test_false_positives_count_where_they_overlap_most():
    """Two houses touch, one stands alone; false positives: mostly on a house, on the lone one, on no building."""
    truths = [*ROW[:2], box(50, 0, 70, 20)]
    on_row, on_lone, on_none = box(30, 0, 54, 20), box(60, 0, 100, 20), box(0, 300, 20, 320)
    instances, match = compare(truths, [on_row, on_lone, on_none])
    assert instances.touching_proposals.tolist() == [True, False, False]
    assert match.counts == Counts(0, 3, 3)
    assert instances.counts(match).touching == Counts(0, 1, 2)
    equal, _ = compare(truths, [box(30, 0, 60, 20)])
    assert equal.touching_proposals.tolist() == [True]  # of equal overlaps the first building


def test_tiles_without_buildings_or_proposals():
    assert counts([], []) == InstanceCounts()
    assert counts([], [LONE]) == InstanceCounts()
    assert counts([LONE], []) == InstanceCounts()


def test_a_ring_that_crosses_itself_is_compared_by_the_area_that_it_encloses():
    """Triangles of 150 and 1350 px², of which the shoelace formula gives the difference."""
    bow_tie = Polygon([(0, 0), (60, 60), (60, 0), (0, 20)])
    instances, _ = compare([Polygon([(0, 1), (0, 19), (13, 14.5)]), box(40, 20, 60, 40)], [bow_tie, LONE])
    assert instances.merged.tolist() == [True, False]


def test_panoptic_quality_of_the_paper():
    """PQ = Σ IoU / (TP + FP/2 + FN/2): 1.5 / (2 + 0.5 + 1.5)."""
    scores = InstanceCounts(iou_sum=1.5).scores(Counts(2, 1, 3))
    assert scores["pq"] == pytest.approx(1.5 / 4)
    assert scores["matched_iou"] == 0.75


# --- against a plain implementation


def plain_counts(truths: list[Polygon], proposals: list[Polygon], match: Match) -> InstanceCounts:
    """Count polygon by polygon, each against all others, by the words of the definitions."""
    near = [any(one.distance(two) <= 1 for two in truths if two is not one) for one in truths]
    tp = fp = merged = split = 0
    iou_sum = 0.0
    for number, proposal in enumerate(proposals):
        if proposal.area < 80:
            continue
        owner = match.truth_of_proposal[number]
        if owner >= 0:
            tp += near[owner]
            truth = truths[owner]
            iou_sum += proposal.intersection(truth).area / proposal.union(truth).area
        else:
            overlaps = [proposal.intersection(truth).area for truth in truths]
            fp += max(overlaps, default=0) > 0 and near[int(np.argmax(overlaps))]
        merged += sum(t.area >= 80 and proposal.intersection(t).area > t.area / 2 for t in truths) >= 2
    for truth in (truth for truth in truths if truth.area >= 80):
        pieces = [p for p in proposals if p.area >= 80 and p.intersection(truth).area > p.area / 2]
        split += len(pieces) >= 2 and sum(p.intersection(truth).area for p in pieces) > truth.area / 2
    matched = {int(owner) for owner in match.truth_of_proposal}
    fn = sum(t.area >= 80 and near[i] and i not in matched for i, t in enumerate(truths))
    return InstanceCounts(Counts(tp, fp, fn), merged, split, iou_sum)


def random_tile(rng: np.random.Generator) -> tuple[list[Polygon], list[Polygon]]:
    """Draw buildings, some in rows, and proposals: shifted, of two buildings, of half a building, or elsewhere."""
    buildings = list(street_map(rng, 40))
    for start in rng.uniform(0, 800, (6, 2)):
        widths = rng.uniform(6, 24, 4)
        left = start[0] + np.concatenate([[0], np.cumsum(widths + rng.choice([0, 0.9, 1.1], 4))[:-1]])
        buildings += [box(x, start[1], x + w, start[1] + 20) for x, w in zip(left, widths, strict=True)]
    proposals = list(shifted(rng, np.array(buildings, dtype=object)).polygons)
    proposals += [one.union(two).convex_hull for one, two in pairwise(buildings[40:])]
    for building in buildings[::3]:
        x0, y0, x1, y1 = building.bounds
        middle = (x0 + x1) / 2
        proposals += [box(x0, y0, middle - 0.5, y1), box(middle + 0.5, y0, x1, y1)]
    proposals += [Point(*xy).buffer(9) for xy in rng.uniform(0, 900, (5, 2))]
    drawn = rng.random(len(proposals)) < 0.6
    return buildings, [proposal for proposal, is_drawn in zip(proposals, drawn, strict=True) if is_drawn]


@pytest.mark.parametrize("seed", range(6))
def test_counts_equal_those_of_plain_loops(seed):
    truths, proposals = random_tile(np.random.default_rng(seed))
    instances, match = compare(truths, proposals)
    counted, plain = instances.counts(match), plain_counts(truths, proposals, match)
    assert (counted.touching, counted.merged, counted.split) == (plain.touching, plain.merged, plain.split)
    assert counted.iou_sum == pytest.approx(plain.iou_sum)
    assert min(counted.merged, counted.split, counted.touching.tp, counted.touching.fp, counted.touching.fn) > 0
    alone = match.counts - counted.touching
    assert min(alone.tp, alone.fp, alone.fn) > 0


def test_the_counts_do_not_depend_on_the_order_of_the_polygons():
    truths, proposals = random_tile(np.random.default_rng(7))
    confidences = np.random.default_rng(0).permutation(len(proposals)) / len(proposals)
    results = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows, columns = rng.permutation(len(truths)), rng.permutation(len(proposals))
        shuffled = np.array(truths, dtype=object)[rows], np.array(proposals, dtype=object)[columns]
        match = match_tile(*shuffled, confidences[columns])
        counted = compare_instances(*shuffled, match, PIXEL).counts(match)
        results.append((counted.touching, counted.merged, counted.split, pytest.approx(counted.iou_sum)))
    assert results[0] == results[1] == results[2]
