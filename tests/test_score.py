"""`python -m sn6.score`: the rules on files made by hand in both modes, the parts of a score, and wrong input."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import small_run
from helpers.handmade import CSV_HEADER, NORTH, WEST, speckle, write_labels, write_orientations, write_tile
from shapely import Polygon, affinity, box

from sn6.cli import run_command
from sn6.datasets.layout import labels_path
from sn6.footprints import Footprints
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter
from sn6.score import score

PROPOSALS = "ImageId,BuildingId,PolygonWKT_Pix,Confidence\n"
TWINS = "MULTIPOLYGON (((0 0, 20 0, 20 20, 0 20, 0 0)), ((40 0, 60 0, 60 20, 40 20, 40 0)))"
BOW_TIE = "POLYGON ((0 0, 40 40, 40 0, 0 40, 0 0))"  # two triangles of 400 px², 0 by the shoelace formula
WRITERS = {"csv": ChallengeCSVWriter, "geojson": GeoJSONWriter, "parquet": GeoParquetWriter}


def wkt(polygon) -> str:
    return polygon if isinstance(polygon, str) else polygon.wkt


@pytest.fixture
def sn6_score(tmp_path, monkeypatch, capsys):
    """The command on rows of (tile, polygon, height) and (tile, polygon, confidence); its file and what it printed."""

    def call(truth, proposals, *words):
        rows = [f'{tile},{i},"{wkt(polygon)}",{height},,\n' for i, (tile, polygon, height) in enumerate(truth)]
        (tmp_path / "truth.csv").write_text(CSV_HEADER + "".join(rows))
        rows = [f'{tile},{i},"{wkt(polygon)}",{sure}\n' for i, (tile, polygon, sure) in enumerate(proposals)]
        (tmp_path / "proposals.csv").write_text(PROPOSALS + "".join(rows))
        return run(monkeypatch, capsys, tmp_path / "truth.csv", tmp_path / "proposals.csv", *words)

    return call


def run(monkeypatch, capsys, truth: Path, proposals: Path, *words: str):
    out = proposals.parent / "out" / "score.json"
    monkeypatch.setattr(sys, "argv", ["sn6.score", f"truth={truth}", f"proposals={proposals}", f"out={out}", *words])
    run_command(score, "sn6.score")
    return json.loads(out.read_text()), capsys.readouterr().out


def refused(capsys, call, *arguments) -> str:
    """The one line that ends the command."""
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    assert stop.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith("sn6: ")
    assert line.count("\n") == 1
    return line


def counts(card) -> tuple[int, int, int]:
    return card["overall"]["tp"], card["overall"]["fp"], card["overall"]["fn"]


BOTH = pytest.mark.parametrize("strict", ["strict=true", "strict=false"])
HOUSE = box(0, 0, 20, 20)


# --- the rules


@BOTH
def test_rule_1_what_is_smaller_than_80_pixels_does_not_count(sn6_score, strict):
    truth = [("a", box(0, 0, 10, 8), 3), ("a", box(50, 0, 60, 7.9), 3)]
    card, _ = sn6_score(truth, [("a", box(0, 0, 10, 8), 1), ("a", box(50, 0, 60, 8), 1)], strict)
    assert counts(card) == (1, 1, 0)
    card, _ = sn6_score(truth, [("a", box(0, 0, 10, 7.9), 1)], strict)
    assert counts(card) == (0, 0, 1)


@BOTH
def test_rule_2_the_surest_first_then_the_first_in_the_file(sn6_score, strict):
    truth = [("a", HOUSE, 3)]
    exact, rough, half = HOUSE, box(0, 0, 20, 15), box(0, 0, 20, 10)
    assert counts(sn6_score(truth, [("a", half, 1)], strict)[0]) == (0, 1, 1)  # 0.5 is not enough
    card, _ = sn6_score(truth, [("a", exact, 0.4), ("a", rough, 0.9)], strict)
    assert counts(card) == (1, 1, 0)
    # The twin comes second by its confidence, and the building that it fits is taken by then.
    overlapping = [("a", box(0, 0, 20, 16), 3), ("a", box(0, 0, 20, 20), 3)]
    both = [("a", box(0, 0, 20, 20), 0.9), ("a", box(0, 0, 20, 19), 0.8)]
    assert counts(sn6_score(overlapping, both, strict)[0]) == (2, 0, 0)


@BOTH
def test_rule_3_counts_are_summed_over_tiles(sn6_score, strict):
    truth = [("a", HOUSE, 3), *[("b", box(30 * i, 0, 30 * i + 20, 20), 3) for i in range(3)]]
    card, _ = sn6_score(truth, [("a", HOUSE, 1), ("b", HOUSE, 1), ("b", box(0, 50, 20, 70), 1)], strict)
    assert card["overall"] == pytest.approx({"tp": 2, "fp": 1, "fn": 2, "precision": 2 / 3, "recall": 0.5, "f1": 4 / 7})
    assert card["tiles"] == 2


def test_rule_4_tiles_without_a_row_are_missed_or_in_strict_left_out(sn6_score):
    truth = [("a", HOUSE, 3), ("b", HOUSE, 3), ("b", box(50, 0, 70, 20), 3), ("c", "POLYGON EMPTY", "")]
    card, said = sn6_score(truth, [("a", HOUSE, 1)])
    assert counts(card) == (1, 0, 2)
    assert (
        "note: 2 tiles of the truth, first b, have no row in the proposals; their 2 buildings count as missed" in said
    )
    card, said = sn6_score(truth, [("a", HOUSE, 1)], "strict=true")
    assert counts(card) == (1, 0, 0)
    assert "left out" in said
    assert card["strict"] is True
    card, said = sn6_score(truth, [("a", HOUSE, 1), *[(tile, "POLYGON EMPTY", 0) for tile in "bc"]], "strict=true")
    assert counts(card) == (1, 0, 2)
    assert "left out" not in said


@BOTH
def test_tiles_without_truth_are_left_out_and_told(sn6_score, strict):
    card, said = sn6_score([("a", HOUSE, 3)], [("a", HOUSE, 1), ("z", HOUSE, 1)], strict)
    assert counts(card) == (1, 0, 0)
    assert "1 tiles of the proposals, first z, have no row in the truth" in said
    assert any("first z" in note for note in card["notes"])


@BOTH
def test_rule_5_comments_rows_of_no_building_and_empty_confidences(tmp_path, monkeypatch, capsys, strict):
    truth, proposals = tmp_path / "t.csv", tmp_path / "p.csv"
    truth.write_text(f'{CSV_HEADER}a,0,"{HOUSE.wkt}",3,,\n')
    text = f'# ours\n\n{PROPOSALS}a,0,"{box(0, 0, 20, 15).wkt}",\na,1,"{HOUSE.wkt}",0.1\na,-1,"{HOUSE.wkt}",1\n'
    proposals.write_text(text)
    card, said = run(monkeypatch, capsys, truth, proposals, strict)
    assert counts(card) == (1, 1, 0)
    assert f"note: {proposals}: 1 polygons stand in rows with the BuildingId -1" in said


def test_rule_6_of_a_multipolygon_each_part_counts_or_in_strict_the_first(sn6_score):
    card, said = sn6_score([("a", TWINS, 5)], [("a", HOUSE, 1), ("a", box(40, 0, 60, 20), 1)])
    assert counts(card) == (2, 0, 0)
    assert "truth.csv: 1 geometries have 2 parts; each part counts" in said
    card, said = sn6_score([("a", TWINS, 5)], [("a", TWINS, 1), ("a", box(40, 0, 60, 20), 1)], "strict=true")
    assert counts(card) == (1, 1, 0)
    assert said.count("1 parts after the first are not read") == 2


def test_rule_6_a_ring_that_crosses_itself_is_repaired_or_in_strict_has_its_shoelace_area(sn6_score):
    truth, proposals = [("a", BOW_TIE, 5), ("a", box(90, 0, 110, 20), 5)], [("a", BOW_TIE, 1)]
    card, said = sn6_score(truth, proposals)
    assert counts(card) == (1, 0, 1)
    assert "truth.csv: 1 polygons, first on a, cross themselves; they are repaired" in said
    assert "proposals.csv: 1 polygons, first on a, cross themselves; they are repaired" in said
    card, said = sn6_score(truth, proposals, "strict=true")
    assert counts(card) == (0, 0, 1)
    assert "shoelace" in said


@BOTH
def test_rule_6_holes_subtract(sn6_score, strict):
    court = Polygon([(0, 0), (20, 0), (20, 20), (0, 20)], [[(2, 2), (18, 2), (18, 18), (2, 18)]])
    card, _ = sn6_score([("a", court, 3), ("b", court, 3)], [("a", HOUSE, 1), ("b", court, 1)], strict)
    assert counts(card) == (1, 1, 1)


# --- the parts


def test_recall_is_told_by_the_building_and_precision_by_the_proposal(sn6_score):
    """By hand: 100 m² found by 75 m²; 25 m² missed; 225 m² found by 225 m²; 50 m² invented."""
    truth = [("a", HOUSE, 2), ("a", box(50, 0, 60, 10), 30), ("a", box(100, 0, 130, 30), "nan")]
    proposals = [("a", box(0, 0, 20, 15), 1), ("a", box(100, 0, 130, 30), 1), ("a", box(0, 90, 20, 100), 1)]
    card, said = sn6_score(truth, proposals)
    area = card["by_area"]
    assert {name: (bin["buildings"], bin["found"]) for name, bin in area.items() if bin["buildings"]} == {
        "20-40 m2": (1, 0),
        "80-160 m2": (1, 1),
        "160-320 m2": (1, 1),
    }
    assert {name: (bin["proposals"], bin["hits"]) for name, bin in area.items() if bin["proposals"]} == {
        "40-80 m2": (2, 1),
        "160-320 m2": (1, 1),
    }
    assert area["40-80 m2"]["precision"] == 0.5
    assert area["20-40 m2"]["recall"] == 0
    height = card["by_height"]
    assert {name: (bin["buildings"], bin["found"]) for name, bin in height.items() if bin["buildings"]} == {
        "0-3 m": (1, 1),
        "24-48 m": (1, 0),
        "unknown": (1, 1),
    }
    assert "precision" not in height["0-3 m"]
    assert "40-80 m2" in said
    assert "640+ m2" not in said  # nothing to show there


def test_just_20_square_metres_lie_in_the_first_bin(sn6_score):
    card, _ = sn6_score([("a", box(0, 0, 10, 8), "")], [("a", box(0, 0, 10, 8), 1)])
    assert card["by_area"]["20-40 m2"]["found"] == 1
    assert card["by_height"] == {}


@pytest.fixture
def two_strips(tmp_path):
    """Tiles of 64 px, 500 m apart, a strip each; the first has nodata on its left 10 columns."""
    first, second = speckle(), speckle()
    first[:, :, :10] = 0
    root = tmp_path / "archive"
    names = [
        write_tile(root, "SAR-Intensity", first, number=1),
        write_tile(root, "SAR-Intensity", second, number=2, strip="20190804111224_20190804111453", west=WEST + 500),
    ]
    write_orientations(root)
    at_border, near, far = box(5, 0, 20, 20), box(25, 30, 45, 50), box(40, 0, 60, 20)
    rows = [(names[0], at_border), (names[0], near), (names[0], far), (names[1], HOUSE)]
    write_labels(root, "".join(f'{name},{i},"{polygon.wkt}",5,,\n' for i, (name, polygon) in enumerate(rows)))
    return root, names, {names[0]: [at_border, far], names[1]: [box(40, 40, 60, 60)]}


def test_an_archive_tells_orientation_strip_nodata_and_place(two_strips, tmp_path, monkeypatch, capsys):
    root, names, proposed = two_strips
    with ChallengeCSVWriter(tmp_path / "p.csv") as writer:
        for name, polygons in proposed.items():
            writer.write(name, (0.0, 0.0), Footprints(np.array(polygons), np.ones(len(polygons))))
    card, _ = run(monkeypatch, capsys, root, tmp_path / "p.csv")
    assert counts(card) == (2, 1, 2)
    orientation = {name: (one["tp"], one["fp"], one["fn"]) for name, one in card["by_orientation"].items()}
    assert orientation == {"south": (2, 0, 1), "north": (0, 1, 1)}
    strips = {name: (one["tp"], one["fp"], one["fn"]) for name, one in card["by_strip"].items()}
    assert strips == {names[0].split("_tile")[0]: (2, 0, 1), names[1].split("_tile")[0]: (0, 1, 1)}
    nodata = {name: (one["buildings"], one["found"]) for name, one in card["by_nodata"].items()}
    assert nodata == {"at nodata": (1, 1), "0-10 m": (1, 0), "10-50 m": (1, 1), "50+ m": (1, 0)}
    assert [one["proposals"] for one in card["by_nodata"].values()] == [1, 0, 1, 1]
    assert card["interval"]["places"] == 2
    same, _ = run(monkeypatch, capsys, labels_path(root), tmp_path / "p.csv", f"root={root}")
    assert same == card


# --- the formats


def write_all(folder, tiles):
    """The same tiles in the three formats."""
    for suffix, writer in WRITERS.items():
        with writer(folder / f"p.{suffix}") as file:
            for name, (corner, polygons) in tiles.items():
                sure = np.linspace(0, 1, len(polygons))
                file.write(name, corner, Footprints(np.array(polygons, dtype=object), sure))


def test_the_three_formats_give_the_same_score(tmp_path, monkeypatch, capsys):
    """Corners off any grid; areas of just 80 px² and IoUs of just a half, which a rounding would tip over."""
    rng = np.random.default_rng(3)
    edge = [box(0, 0, 10, 8), box(20, 0, 40, 10), Polygon([(50, 0), (70, 0), (70, 10), (60, 10), (60, 20), (50, 20)])]
    truth = {}
    tiles = {}
    for i in range(30):
        moved = [affinity.translate(shape, *rng.integers(0, 400, 2)) for shape in edge]
        corner = (WEST + rng.uniform(0, 1e3), NORTH - rng.uniform(0, 1e3))
        truth[f"s_tile_{i}"] = [*moved, affinity.translate(moved[1], 500, 0)]
        halves = [moved[0], box(*moved[1].bounds[:2], moved[1].bounds[0] + 10, moved[1].bounds[3]), moved[2]]
        tiles[f"s_tile_{i}"] = (corner, halves if i % 3 else [])
    rows = [f'{name},{i},"{polygon.wkt}",5,,\n' for name, found in truth.items() for i, polygon in enumerate(found)]
    (tmp_path / "truth.csv").write_text(CSV_HEADER + "".join(rows))
    write_all(tmp_path, tiles)
    cards = {
        suffix: run(monkeypatch, capsys, tmp_path / "truth.csv", tmp_path / f"p.{suffix}")[0] for suffix in WRITERS
    }
    assert counts(cards["csv"]) == (40, 20, 80)
    assert cards["csv"]["interval"] is None
    assert any("no interval" in note for note in cards["csv"]["notes"])
    assert cards["geojson"] == cards["parquet"]
    assert cards["geojson"]["overall"] == cards["csv"]["overall"]
    assert cards["geojson"]["by_area"] == cards["csv"]["by_area"]
    assert cards["geojson"]["interval"]["places"] > 1
    for name in ("p.geojson", "p.parquet"):  # as the truth, too
        card, _ = run(monkeypatch, capsys, tmp_path / name, tmp_path / "p.csv")
        assert counts(card) == (60, 0, 0)


def test_a_gis_file_without_our_metadata_is_placed_by_the_archive(two_strips, tmp_path, monkeypatch, capsys):
    geopandas = pytest.importorskip("geopandas")
    root, _, proposed = two_strips
    corners = [(WEST, NORTH), (WEST + 500, NORTH)]
    write_all(tmp_path, {name: (c, found) for (name, found), c in zip(proposed.items(), corners, strict=True)})
    expected = [run(monkeypatch, capsys, root, tmp_path / f"p.{suffix}")[0] for suffix in WRITERS]
    table = geopandas.read_file(tmp_path / "p.geojson")
    table.to_parquet(tmp_path / "q.parquet")
    table.to_file(tmp_path / "q.geojson", driver="GeoJSON")
    assert '"tiles"' not in (tmp_path / "q.geojson").read_text()
    for name in ("q.parquet", "q.geojson"):
        card, _ = run(monkeypatch, capsys, root, tmp_path / name)
        assert counts(card) == counts(expected[0]) == (2, 1, 2)
    line = refused(capsys, run, monkeypatch, capsys, labels_path(root), tmp_path / "q.parquet")
    assert "q.parquet, footprint 1, tile" in line
    assert "root=" in line
    table.to_crs(4326).to_parquet(tmp_path / "degrees.parquet")
    line = refused(capsys, run, monkeypatch, capsys, root, tmp_path / "degrees.parquet")
    assert "EPSG:4326; reproject it to EPSG:32631" in line


def test_the_files_of_a_run_score_what_it_reported(sn6_run, archive_root, tmp_path, monkeypatch, capsys):
    """A network that is hardly trained, whose maps are full of holes and corners, on tiles of both orientations."""
    words = [*small_run(model="unet"), f"data.root={archive_root}", "callbacks.polygon_f1.threshold=-1.0"]
    assert sn6_run(*words, "trainer.limit_val_batches=1", "trainer.limit_test_batches=4").status == 0
    folder = tmp_path / "outputs" / "it"
    reported = json.loads((folder / "metrics.json").read_text())
    assert reported["fp"] > 10
    assert reported["fn"] > 5
    for name in ("proposals.csv", "footprints.geojson"):
        card, _ = run(monkeypatch, capsys, archive_root, folder / name)
        assert counts(card) == (reported["tp"], reported["fp"], reported["fn"])
        assert set(card["by_orientation"]) == {"north", "south"}


# --- wrong input


@pytest.mark.parametrize(
    ("truth", "proposals", "parts"),
    [
        ([("a", "POLYGON EMPTY", "")], [("a", HOUSE, 1)], ["truth.csv: there is no building on its 1 tiles"]),
        ([("a", HOUSE, 3)], [("b", HOUSE, 1)], ["proposals.csv names no tile of", "truth.csv"]),
        ([("a", HOUSE, 3)], [], ["proposals.csv names no tile of"]),
        ([("a", HOUSE, 3)], [("a", "POLYGON ((0 0, 9", 1)], ["proposals.csv, line 2, tile a", "does not parse"]),
        ([("a", HOUSE, 3)], [("a", "POLYGON ((0 0, 9 0, 0 0))", 1)], ["line 2, tile a", "less than four points"]),
        ([("a", "POLYGON ((0 0, 9 0, nan 9, 0 0))", 1)], [("a", HOUSE, 1)], ["truth.csv, line 2", "NaN"]),
        (
            [("s_s_tile_7", HOUSE, 3)],
            [("SN6_Train_AOI_11_Rotterdam_SAR-Intensity_s_s_tile_7.tif", HOUSE, 1)],
            ["proposals.csv", "s_s_tile_7 are one tile under two names"],
        ),
        ([("a_tile_7", HOUSE, 3), ("b_tile_7", HOUSE, 3)], [("a_tile_7", HOUSE, 1)], ["truth.csv", "two names"]),
    ],
)
@BOTH
def test_what_cannot_be_scored_is_told_in_one_line(sn6_score, capsys, truth, proposals, parts, strict):
    line = refused(capsys, sn6_score, truth, proposals, strict)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("resamples=0", "resamples=0"),
        ("place=0", "place=0"),
        ("root=nowhere", "nowhere is not an archive"),
        ("proposal=x", "the keys are truth, proposals, root"),
    ],
)
def test_a_word_that_does_not_fit_is_told(sn6_score, capsys, word, part):
    assert part in refused(capsys, sn6_score, [("a", HOUSE, 3)], [("a", HOUSE, 1)], word)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("p.shp", b"", "give a .csv, .geojson or .parquet"),
        ("p.csv", b"ImageId,BuildingId,PolygonWKT_Pix\n", "there is no column Confidence"),
        ("p.parquet", b"PAR1 no more", "is no GeoParquet file"),
        ("gone/p.parquet", None, "cannot be read"),
        ("p.geojson", b'{"features": [{"geometry": null, "properties": {"image_id": "a"}}]}', "no property confidence"),
        ("p.geojson", b'{"features": [{"geometry": null, "properties": {"confidence": 1}}]}', "there is no image_id"),
        (
            "p.geojson",
            b'{"tiles": ["a"], "features": [{"geometry": null, "properties": {"image_id": "a", "confidence": 1}}]}',
            "its list of tiles is damaged",
        ),
    ],
)
def test_files_that_do_not_do_are_told(tmp_path, monkeypatch, capsys, name, content, part):
    (tmp_path / "truth.csv").write_text(f'{CSV_HEADER}a,0,"{HOUSE.wkt}",3,,\n')
    if content is not None:
        (tmp_path / name).write_bytes(content)
    line = refused(capsys, run, monkeypatch, capsys, tmp_path / "truth.csv", tmp_path / name)
    assert part in line
    assert name in line
