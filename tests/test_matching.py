"""The challenge's matching, rule by rule, and against a plain implementation on sets of pixels."""

import numpy as np
import pytest
import shapely
from shapely import Polygon, box

from sn6.metrics.matching import Counts, match_tile


def match(truths, proposals, confidences=None):
    confidences = [0.5] * len(proposals) if confidences is None else confidences
    polygons = np.array(truths, dtype=object), np.array(proposals, dtype=object)
    return match_tile(*polygons, np.array(confidences, dtype=float))


def test_rule_1_a_building_below_80_pixels_does_not_count_and_one_of_80_does():
    assert match([box(0, 0, 10, 8)], []).counts == Counts(0, 0, 1)
    assert match([box(0, 0, 10, 7.99)], []).counts == Counts(0, 0, 0)
    assert match([], [box(0, 0, 10, 8)]).counts == Counts(0, 1, 0)
    assert match([], [box(0, 0, 10, 7.99)]).counts == Counts(0, 0, 0)
    assert match([box(0, 0, 10, 8)], [box(0, 0, 10, 8)]).counts == Counts(1, 0, 0)


def test_rule_1_a_proposal_on_a_dropped_building_is_a_false_positive():
    result = match([box(0, 0, 10, 7)], [box(0, 0, 10, 8)])
    assert result.counts == Counts(0, 1, 0)
    assert result.truths_counted.tolist() == [False]
    assert result.false_positives.tolist() == [True]


def test_rule_1_holes_do_not_count_as_area():
    ring = Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [[(2, 2), (7, 2), (7, 7), (2, 7)]])  # 75 px²
    assert match([ring], [ring]).counts == Counts(0, 0, 0)


def test_rule_2_half_the_union_is_not_enough():
    truth = box(0, 0, 10, 16)
    assert match([truth], [box(0, 0, 10, 8)]).counts == Counts(0, 1, 1)  # 80 / 160
    assert match([truth], [box(0, 0, 10, 8.001)]).counts == Counts(1, 0, 0)
    assert match([truth], [box(0, 0, 20, 16)]).counts == Counts(0, 1, 1)  # 160 / 320
    assert match([box(0, 0, 30, 10)], [box(10, 0, 40, 10)]).counts == Counts(0, 1, 1)  # 200 / 400
    corner = Polygon([(0, 0), (20, 0), (0, 20)])
    assert match([box(0, 0, 20, 20)], [corner]).counts == Counts(0, 1, 1)  # 200 / 400


def test_rule_2_the_more_confident_proposal_matches_even_with_the_lower_iou():
    truth, exact, rough = box(0, 0, 20, 20), box(0, 0, 20, 20), box(0, 0, 20, 15)
    result = match([truth], [exact, rough], [0.3, 0.9])
    assert result.truth_of_proposal.tolist() == [-1, 0]
    assert result.counts == Counts(1, 1, 0)


def test_rule_2_of_equal_confidences_the_first_in_the_file_is_matched_first():
    truth, exact, rough = box(0, 0, 20, 20), box(0, 0, 20, 20), box(0, 0, 20, 15)
    assert match([truth], [rough, exact], [0.7, 0.7]).truth_of_proposal.tolist() == [0, -1]
    assert match([truth], [exact, rough], [0.7, 0.7]).truth_of_proposal.tolist() == [0, -1]


def test_rule_2_a_proposal_matches_the_unmatched_building_of_the_highest_iou():
    near, nearer = box(0, 0, 20, 16), box(0, 0, 20, 19)  # the buildings overlap
    assert match([near, nearer], [box(0, 0, 20, 20)]).truth_of_proposal.tolist() == [1]
    both = match([near, nearer], [box(0, 0, 20, 20), box(0, 0, 20, 19)], [0.9, 0.8])
    assert both.truth_of_proposal.tolist() == [1, 0]  # the second matches what is left, with the lower IoU
    assert both.counts == Counts(2, 0, 0)


def test_rule_2_of_buildings_with_equal_iou_the_first_is_matched():
    twins = [box(0, 0, 20, 20), box(0, 0, 20, 20)]
    assert match(twins, [box(0, 0, 20, 18)]).truth_of_proposal.tolist() == [0]


def test_rule_2_a_building_is_matched_once():
    result = match([box(0, 0, 20, 20)], [box(0, 0, 20, 20)] * 3)
    assert result.counts == Counts(1, 2, 0)


def test_rule_3_counts_are_summed_before_f1_is_computed():
    tiles = [Counts(tp=9, fp=1, fn=0), Counts(tp=0, fp=0, fn=10), Counts()]
    pooled = sum(tiles, Counts())
    assert pooled == Counts(9, 1, 10)
    assert pooled.precision == 0.9
    assert pooled.recall == 9 / 19
    assert pooled.f1 == pytest.approx(18 / 29)


def test_rule_3_without_counts_the_scores_are_0():
    for counts in (Counts(), Counts(fp=3), Counts(fn=3)):
        assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)


def test_rule_6_the_area_of_a_hole_is_not_part_of_the_overlap():
    outline = [(0, 0), (20, 0), (20, 20), (0, 20)]
    courtyard = Polygon(outline, [[(2, 2), (18, 2), (18, 18), (2, 18)]])  # 144 of 400 px²
    assert match([courtyard], [box(0, 0, 20, 20)]).counts == Counts(0, 1, 1)
    assert match([courtyard], [box(2, 2, 18, 18)]).counts == Counts(0, 1, 1)
    assert match([courtyard], [courtyard]).counts == Counts(1, 0, 0)


def test_rule_6_a_self_intersecting_ring_of_area_0_is_dropped():
    bow_tie = Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    result = match([bow_tie], [bow_tie, box(0, 0, 40, 40)])
    assert result.truths_counted.tolist() == [False]
    assert result.proposals_counted.tolist() == [False, True]
    assert result.counts == Counts(0, 1, 0)


def test_rule_6_a_self_intersecting_ring_is_scored_by_its_shoelace_area():
    # Two triangles of 100 and 400 px² with opposite orientation: the shoelace formula gives 300.
    crossing = Polygon([(0, 0), (30, 30), (30, -10), (10, 10), (0, 20)])
    lobes = [Polygon([(0, 0), (10, 10), (0, 20)]), Polygon([(10, 10), (30, 30), (30, -10)])]
    assert [lobe.area for lobe in lobes] == [100, 400]
    assert match([crossing], [lobes[1]]).counts == Counts(1, 0, 0)  # 400 / (300 + 400 - 400)
    assert match([crossing], [lobes[0]]).counts == Counts(0, 1, 1)  # 100 / (300 + 100 - 100)
    touching = Polygon([(0, 0), (20, 0), (10, 10), (20, 20), (0, 20), (10, 10)])
    assert match([touching], [touching]).counts == Counts(1, 0, 0)


def test_true_positives_false_positives_and_false_negatives_are_listed():
    truths = [box(0, 0, 20, 20), box(50, 0, 70, 20), box(0, 50, 5, 55)]
    proposals = [box(50, 50, 70, 70), box(0, 0, 20, 19), box(80, 80, 82, 82)]
    result = match(truths, proposals)
    assert result.truth_of_proposal.tolist() == [-1, 0, -1]
    assert result.true_positives.tolist() == [False, True, False]
    assert result.false_positives.tolist() == [True, False, False]
    assert result.proposals_counted.tolist() == [True, True, False]
    assert result.false_negatives.tolist() == [False, True, False]
    assert result.truths_counted.tolist() == [True, True, False]
    assert result.counts == Counts(1, 1, 1)


def test_an_empty_tile_counts_nothing():
    assert match([], []).counts == Counts()


Cells = frozenset[tuple[int, int]]


def random_building(rng: np.random.Generator) -> tuple[Polygon, Cells]:
    """Return a block, an L, a U or a courtyard house on whole pixels, and the pixels themselves."""
    width, height = rng.integers(7, 15, 2).tolist()
    if rng.random() < 0.3:
        width, height = [(10, 8), (8, 10), (16, 5), (10, 16)][rng.integers(4)]  # 80 and twice 80
    x, y = rng.integers(0, 30, 2).tolist()
    a, b = int(rng.integers(1, width - 3)), int(rng.integers(1, height - 2))
    outline = [(0, 0), (width, 0), (width, height), (0, height)]
    holes, notch = [], set()
    kind = rng.integers(4)
    if kind == 1:
        outline = [(0, 0), (width, 0), (width, b), (a, b), (a, height), (0, height)]
        notch = {(i, j) for i in range(a, width) for j in range(b, height)}
    elif kind == 2:
        outline = [(0, 0), (a, 0), (a, b), (a + 2, b), (a + 2, 0), (width, 0), (width, height), (0, height)]
        notch = {(i, j) for i in range(a, a + 2) for j in range(b)}
    elif kind == 3:
        holes = [[(a, b), (a + 2, b), (a + 2, b + 1), (a, b + 1)]]
        notch = {(a, b), (a + 1, b)}
    cells = {(i, j) for i in range(width) for j in range(height)} - notch
    placed = shapely.transform(Polygon(outline, holes), lambda corners: np.add(corners, (x, y)))
    return placed, frozenset((i + x, j + y) for i, j in cells)


def plain_match(truths: list[Cells], proposals: list[Cells], confidences: list[float]) -> list[int]:
    """Match by the rules as they are written, on sets of pixels."""
    free = [i for i, truth in enumerate(truths) if len(truth) >= 80]
    match_of = [-1] * len(proposals)
    for p in sorted(range(len(proposals)), key=lambda p: -confidences[p]):
        if len(proposals[p]) < 80:
            continue
        best, best_iou = -1, 0.5
        for t in free:
            iou = len(truths[t] & proposals[p]) / len(truths[t] | proposals[p])
            if iou > best_iou:
                best, best_iou = t, iou
        if best >= 0:
            match_of[p] = best
            free.remove(best)
    return match_of


def test_matching_equals_the_plain_implementation_on_random_tiles():
    rng = np.random.default_rng(6)
    matched = dropped = exactly_80 = halves = courtyards = 0
    for _ in range(250):
        truths = [random_building(rng) for _ in range(rng.integers(0, 9))]
        proposals = [random_building(rng) for _ in range(rng.integers(0, 3))]
        for polygon, cells in truths:
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.integers(-2, 3, 2).tolist()
                moved = shapely.transform(polygon, lambda xy, by=(dx, dy): xy + by)
                proposals.append((moved, frozenset((i + dx, j + dy) for i, j in cells)))
        confidences = (rng.integers(0, 3, len(proposals)) / 2).tolist()
        result = match([p for p, _ in truths], [p for p, _ in proposals], confidences)
        expected = plain_match([c for _, c in truths], [c for _, c in proposals], confidences)
        assert result.truth_of_proposal.tolist() == expected
        sizes = [len(cells) for _, cells in truths], [len(cells) for _, cells in proposals]
        tp = sum(truth >= 0 for truth in expected)
        large = [sum(size >= 80 for size in side) for side in sizes]
        assert result.counts == Counts(tp, large[1] - tp, large[0] - tp)
        matched += tp
        dropped += sum(size < 80 for side in sizes for size in side)
        exactly_80 += sum(size == 80 for side in sizes for size in side)
        halves += sum(3 * len(t & p) == len(t) + len(p) for _, t in truths for _, p in proposals)  # an IoU of 1/2
        courtyards += sum(len(polygon.interiors) for polygon, _ in truths)
    assert matched > 300
    assert dropped > 300
    assert min(exactly_80, courtyards) > 100
    assert halves > 3
