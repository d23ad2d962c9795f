"""`python -m sn6.score`: the rules on hand-made files in both modes, and the breakdowns of the score."""

import numpy as np
import pytest
from helpers.score_files import PROPOSALS_HEADER, counts, numbers_about, score, write_proposals, write_truth
from helpers.two_strips import write_two_strips
from shapely import Polygon, box

from sn6.datasets.spacenet6 import labels_path
from sn6.footprints import Footprints
from sn6.formats.challenge_csv import ChallengeCSVWriter

TWINS = "MULTIPOLYGON (((0 0, 20 0, 20 20, 0 20, 0 0)), ((40 0, 60 0, 60 20, 40 20, 40 0)))"
BOW_TIE = "POLYGON ((0 0, 40 40, 40 0, 0 40, 0 0))"  # two triangles of 400 px², 0 by the shoelace formula
HOUSE = box(0, 0, 20, 20)
BOTH = pytest.mark.parametrize("strict", ["strict=true", "strict=false"])


@pytest.fixture
def score_rows(tmp_path, sn6_command):
    """Score rows of (tile, polygon, height) and (tile, polygon, confidence); return the content of score.json."""

    def call(truth, proposals, *overrides):
        return score(sn6_command, write_truth(tmp_path, truth), write_proposals(tmp_path, proposals), *overrides)[0]

    return call


@pytest.fixture
def two_strips(tmp_path):
    """Return the root of an archive of two strips, its image ids and proposals."""
    return tmp_path / "archive", *write_two_strips(tmp_path / "archive")


# --- the rules


@BOTH
def test_rule_1_polygons_below_80_pixels_do_not_count(score_rows, strict):
    truth = [("a", box(0, 0, 10, 8), 3), ("a", box(50, 0, 60, 7.9), 3)]
    card = score_rows(truth, [("a", box(0, 0, 10, 8), 1), ("a", box(50, 0, 60, 8), 1)], strict)
    assert counts(card) == (1, 1, 0)
    assert counts(score_rows(truth, [("a", box(0, 0, 10, 7.9), 1)], strict)) == (0, 0, 1)


@BOTH
def test_rule_2_by_falling_confidence_then_in_the_order_of_the_file(score_rows, strict):
    truth = [("a", HOUSE, 3)]
    exact, rough, half = HOUSE, box(0, 0, 20, 15), box(0, 0, 20, 10)
    assert counts(score_rows(truth, [("a", half, 1)], strict)) == (0, 1, 1)  # 0.5 is not enough
    assert counts(score_rows(truth, [("a", exact, 0.4), ("a", rough, 0.9)], strict)) == (1, 1, 0)
    # The second proposal is matched with the first building: the one of its highest IoU is matched already.
    overlapping = [("a", box(0, 0, 20, 16), 3), ("a", box(0, 0, 20, 20), 3)]
    both = [("a", box(0, 0, 20, 20), 0.9), ("a", box(0, 0, 20, 19), 0.8)]
    assert counts(score_rows(overlapping, both, strict)) == (2, 0, 0)


@BOTH
def test_rule_3_counts_are_summed_over_tiles(score_rows, strict):
    truth = [("a", HOUSE, 3), *[("b", box(30 * i, 0, 30 * i + 20, 20), 3) for i in range(3)]]
    card = score_rows(truth, [("a", HOUSE, 1), ("b", HOUSE, 1), ("b", box(0, 50, 20, 70), 1)], strict)
    assert card["overall"] == pytest.approx({"tp": 2, "fp": 1, "fn": 2, "precision": 2 / 3, "recall": 0.5, "f1": 4 / 7})
    assert card["tiles"] == 2


def test_rule_4_tiles_without_a_row_are_false_negatives_or_in_strict_left_out(score_rows, tmp_path):
    truth = [("a", HOUSE, 3), ("b", HOUSE, 3), ("b", box(50, 0, 70, 20), 3), ("c", "POLYGON EMPTY", "")]
    card = score_rows(truth, [("a", HOUSE, 1)])
    assert counts(card) == (1, 0, 2)
    assert card["tiles"] == 3
    assert numbers_about(card, tmp_path / "proposals.csv") == [[2, 2]]  # 2 tiles with 2 buildings
    card = score_rows(truth, [("a", HOUSE, 1)], "strict=true")
    assert counts(card) == (1, 0, 0)
    assert (card["tiles"], card["strict"]) == (1, True)
    assert numbers_about(card, tmp_path / "proposals.csv") == [[2, 2]]
    card = score_rows(truth, [("a", HOUSE, 1), *[(tile, "POLYGON EMPTY", 0) for tile in "bc"]], "strict=true")
    assert counts(card) == (1, 0, 2)
    assert numbers_about(card, tmp_path / "proposals.csv") == []


@BOTH
def test_rule_4_proposals_on_tiles_without_ground_truth_are_false_positives(score_rows, tmp_path, strict):
    """Of three proposals on z one is too small to count; y is named without a proposal."""
    on_z = [("z", HOUSE, 1), ("z", box(50, 0, 70, 20), 0.5), ("z", box(0, 90, 10, 97.9), 1)]
    card = score_rows([("a", HOUSE, 3)], [*on_z, ("a", HOUSE, 1), ("y", "POLYGON EMPTY", 0)], strict)
    assert counts(card) == (1, 2, 0)
    assert card["tiles"] == 3
    assert card["overall"]["f1"] == pytest.approx(2 / 4)
    assert numbers_about(card, tmp_path / "truth.csv") == [[2, 3]]  # 2 tiles with 3 proposals
    assert counts(score_rows([("a", HOUSE, 3)], [("a", HOUSE, 1), ("y", "POLYGON EMPTY", 0)], strict)) == (1, 0, 0)


@BOTH
def test_rule_4_a_multipolygon_on_a_tile_without_ground_truth(score_rows, strict):
    card = score_rows([("a", HOUSE, 3)], [("a", HOUSE, 1), ("z", TWINS, 1)], strict)
    assert counts(card) == (1, 1 if strict == "strict=true" else 2, 0)


@BOTH
def test_rule_5_comments_rows_without_building_and_empty_confidences(sn6_command, tmp_path, strict):
    truth, proposals = write_truth(tmp_path, [("a", HOUSE, 3)]), tmp_path / "proposals.csv"
    rows = f'a,0,"{box(0, 0, 20, 15).wkt}",\na,1,"{HOUSE.wkt}",0.1\na,-1,"{HOUSE.wkt}",1\n'
    proposals.write_text(f"# ours\n\n{PROPOSALS_HEADER}{rows}")
    card, _ = score(sn6_command, truth, proposals, strict)
    assert counts(card) == (1, 1, 0)
    assert numbers_about(card, proposals) == [[1]]


@BOTH
@pytest.mark.parametrize("number", ["-1", "-1.0", " -1.0 ", '"-1.000"', "-1e0"])
def test_rule_5_a_table_of_floats(sn6_command, tmp_path, strict, number):
    """pandas writes a column of ids as floats when one is missing: 3 as 3.0, -1 as -1.0."""
    truth, proposals = tmp_path / "truth.csv", tmp_path / "proposals.csv"
    other = box(50, 0, 70, 20).wkt
    lines = [f'0,a,3.0,"{HOUSE.wkt}",5.0', f'1,a,{number},"{other}",5.0', f"2,b,{number},POLYGON EMPTY,", "3,c,-1.0,,"]
    truth.write_text("\n".join([",ImageId,TileBuildingId,PolygonWKT_Pix,Mean_Building_Height", *lines]))
    lines = [f'0,a,3.0,"{HOUSE.wkt}",1.0', f'1,a,{number},"{other}",1.0', f"2,b ,{number},POLYGON EMPTY,nan"]
    lines += [f'3,c,,"{HOUSE.wkt}",0.5']  # without an id: a proposal
    proposals.write_text("\n".join([", ImageId,BuildingId,PolygonWKT_Pix,Confidence ", *lines]))
    card, _ = score(sn6_command, truth, proposals, strict)
    assert counts(card) == (1, 1, 0)
    assert card["tiles"] == 3
    assert numbers_about(card, truth) == numbers_about(card, proposals) == [[1]]


def test_rule_6_of_a_multipolygon_each_part_counts_or_in_strict_the_first(score_rows, tmp_path):
    card = score_rows([("a", TWINS, 5)], [("a", HOUSE, 1), ("a", box(40, 0, 60, 20), 1)])
    assert counts(card) == (2, 0, 0)
    assert numbers_about(card, tmp_path / "truth.csv") == [[1]]
    card = score_rows([("a", TWINS, 5)], [("a", TWINS, 1), ("a", box(40, 0, 60, 20), 1)], "strict=true")
    assert counts(card) == (1, 1, 0)
    for name in ("truth.csv", "proposals.csv"):
        assert numbers_about(card, tmp_path / name) == [[1]]


def test_rule_6_a_self_intersecting_ring_is_repaired_or_in_strict_has_its_shoelace_area(score_rows, tmp_path):
    truth, proposals = [("a", BOW_TIE, 5), ("a", box(90, 0, 110, 20), 5)], [("a", BOW_TIE, 1)]
    for override, expected in (("strict=false", (1, 0, 1)), ("strict=true", (0, 0, 1))):
        card = score_rows(truth, proposals, override)
        assert counts(card) == expected
        for name in ("truth.csv", "proposals.csv"):
            assert numbers_about(card, tmp_path / name) == [[1]]


@BOTH
def test_rule_6_holes_are_subtracted(score_rows, strict):
    courtyard = Polygon([(0, 0), (20, 0), (20, 20), (0, 20)], [[(2, 2), (18, 2), (18, 18), (2, 18)]])
    card = score_rows([("a", courtyard, 3), ("b", courtyard, 3)], [("a", HOUSE, 1), ("b", courtyard, 1)], strict)
    assert counts(card) == (1, 1, 1)


# --- the breakdowns


def filled(breakdown, *keys):
    """Return the values of the bins whose first key is not 0."""
    return {name: tuple(figures[key] for key in keys) for name, figures in breakdown.items() if figures[keys[0]]}


def test_recall_is_by_the_building_and_precision_by_the_proposal(sn6_command, tmp_path):
    """By hand: TP 100 m² by 75 m², FN 25 m², TP 225 m² by 225 m², FP 50 m²."""
    truth = [("a", HOUSE, 2), ("a", box(50, 0, 60, 10), 30), ("a", box(100, 0, 130, 30), "nan")]
    proposals = [("a", box(0, 0, 20, 15), 1), ("a", box(100, 0, 130, 30), 1), ("a", box(0, 90, 20, 100), 1)]
    card, printed = score(sn6_command, write_truth(tmp_path, truth), write_proposals(tmp_path, proposals))
    area = card["by_area"]
    assert filled(area, "buildings", "matched") == {"20-40 m2": (1, 0), "80-160 m2": (1, 1), "160-320 m2": (1, 1)}
    assert filled(area, "proposals", "tp") == {"40-80 m2": (2, 1), "160-320 m2": (1, 1)}
    assert area["40-80 m2"]["precision"] == 0.5
    assert area["20-40 m2"]["recall"] == 0
    height = card["by_height"]
    assert filled(height, "buildings", "matched") == {"0-3 m": (1, 1), "24-48 m": (1, 0), "unknown": (1, 1)}
    assert "precision" not in height["0-3 m"]
    assert "40-80 m2" in printed
    assert "640+ m2" not in printed  # a bin without buildings and proposals


def test_buildings_one_by_one(sn6_command, tmp_path):
    """On a: two of three row houses are merged, the third is matched. On b: a lone building is split and matched."""
    row = [box(20 * i, 0, 20 * i + 20, 20) for i in range(3)]
    truth = [*[("a", house, 3) for house in row], ("b", box(0, 0, 40, 20), 3)]
    on_a = [("a", box(0, 0, 40, 20), 0.9), ("a", box(40, 0, 60, 16), 0.6)]
    on_b = [("b", box(0, 0, 24, 20), 0.8), ("b", box(26, 0, 40, 20), 0.7), ("b", box(0, 90, 20, 110), 0.5)]
    card, printed = score(sn6_command, write_truth(tmp_path, truth), write_proposals(tmp_path, [*on_a, *on_b]))
    parts = {name: [part[key] for key in ("tp", "fp", "fn")] for name, part in card["by_neighbours"].items()}
    assert parts == {"touching": [1, 1, 2], "alone": [1, 2, 0]}
    scores = card["instances"]
    assert (scores["merged"], scores["split"]) == (1, 1)
    assert scores["matched_iou"] == pytest.approx((0.8 + 0.6) / 2)
    assert scores["pq"] == pytest.approx((0.8 + 0.6) / (2 + 3 / 2 + 2 / 2))
    assert scores["ap50"] == pytest.approx(1 / 4 * 1 / 2 + 1 / 4 * 1 / 2)  # FP, TP, FP, TP, FP of 4 buildings
    for figure in (f"{scores['ap50']:.3f}", f"{scores['pq']:.3f}", "0.700"):
        assert figure in printed


def test_exactly_20_square_metres_are_in_the_first_bin(score_rows):
    card = score_rows([("a", box(0, 0, 10, 8), "")], [("a", box(0, 0, 10, 8), 1)])
    assert card["by_area"]["20-40 m2"]["matched"] == 1
    assert card["by_height"] == {}


def test_an_archive_gives_look_direction_strip_nodata_and_position(two_strips, tmp_path, sn6_command):
    root, names, proposed = two_strips
    with ChallengeCSVWriter(tmp_path / "p.csv") as writer:
        for name, polygons in proposed.items():
            writer.write(name, (0.0, 0.0), Footprints(np.array(polygons), np.ones(len(polygons))))
    card, _ = score(sn6_command, root, tmp_path / "p.csv")
    assert counts(card) == (2, 1, 2)
    keys = ("tp", "fp", "fn")
    by_look_direction = {
        name: tuple(figures[key] for key in keys) for name, figures in card["by_look_direction"].items()
    }
    assert by_look_direction == {"south": (2, 0, 1), "north": (0, 1, 1)}
    by_strip = {name: tuple(figures[key] for key in keys) for name, figures in card["by_strip"].items()}
    assert by_strip == {names[0].split("_tile")[0]: (2, 0, 1), names[1].split("_tile")[0]: (0, 1, 1)}
    nodata = {name: (bin["buildings"], bin["matched"]) for name, bin in card["by_nodata_distance"].items()}
    assert nodata == {"at nodata": (1, 1), "0-10 m": (1, 0), "10-50 m": (1, 1), "50+ m": (1, 0)}
    assert [bin["proposals"] for bin in card["by_nodata_distance"].values()] == [1, 0, 1, 1]
    assert card["interval"]["spatial_blocks"] == 2
    same, _ = score(sn6_command, labels_path(root), tmp_path / "p.csv", f"root={root}")
    assert same == card


def test_the_block_size_sets_the_spatial_blocks(two_strips, tmp_path, sn6_command):
    root, names, _ = two_strips
    proposals = write_proposals(tmp_path, [(name, HOUSE, 1) for name in names])
    card, _ = score(sn6_command, root, proposals, "block_size=1e6")
    assert card["interval"] is None  # one block
    card, _ = score(sn6_command, root, proposals, "resamples=10")
    assert (card["interval"]["spatial_blocks"], card["interval"]["resamples"]) == (2, 10)


def test_results_are_written_to_outputs_by_default(tmp_path, monkeypatch, sn6_command):
    monkeypatch.chdir(tmp_path)
    truth, proposals = write_truth(tmp_path, [("a", HOUSE, 3)]), write_proposals(tmp_path, [("a", HOUSE, 1)])
    assert sn6_command("score", f"truth={truth}", f"proposals={proposals}").status == 0
    assert (tmp_path / "outputs" / "score.json").exists()
