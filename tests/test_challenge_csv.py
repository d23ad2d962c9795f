"""Footprints in the challenge's CSVs."""

import csv
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import box

from sn6.errors import UserError
from sn6.footprints import Footprints, challenge_csv
from sn6.formats.challenge_csv import (
    ChallengeCSVWriter,
    read_labels,
    read_proposals,
    read_proposals_csv,
    read_truth_csv,
)
from sn6.formats.outlines import parts

LABELS = "ImageId,TileBuildingId,PolygonWKT_Pix,Mean_Building_Height,Median_Building_Height,StdDev_Building_Height\n"
PROPOSALS = "ImageId,BuildingId,PolygonWKT_Pix,Confidence\n"
SQUARE = '"POLYGON ((0 0, 20 0, 20 20, 0 20, 0 0))"'
COURT = shapely.Polygon([(1, 1), (21, 1), (21, 21.5), (1, 21.5)], [[(4, 4), (8, 4), (8, 8), (4, 8)]])


def written(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def footprints(*polygons: shapely.Polygon, confidences: tuple[float, ...] = ()) -> Footprints:
    return Footprints(np.array(polygons, dtype=object), np.array(confidences, dtype=np.float64))


TILES = {
    "b_tile_2": footprints(COURT, box(30, 0, 50, 20), confidences=(0.123456789012345, 0.5)),
    "c_tile_3": footprints(),
    "a_tile_1": footprints(box(0.1, 0.2, 20.3, 20), confidences=(1.0,)),
}


def write_proposals(path, tiles):
    with ChallengeCSVWriter(path) as writer:
        for image_id, found in tiles.items():
            writer.write(image_id, (0.0, 0.0), found)


# --- proposals, the rules of the score that speak of the file


def test_proposals_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "proposals.csv"
    write_proposals(path, TILES)
    back = read_proposals(path)
    assert list(back) == list(TILES)
    for tile, expected in TILES.items():
        assert shapely.equals_exact(back[tile].polygons, expected.polygons, tolerance=0).all()
        assert (back[tile].confidences == expected.confidences).all()


def test_rule_4_and_5_the_file_names_every_tile_in_the_challenges_form(tmp_path):
    write_proposals(tmp_path / "p.csv", TILES)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] + "\n" == PROPOSALS
    assert lines[2] == 'b_tile_2,1,"POLYGON ((50 0, 50 20, 30 20, 30 0, 50 0))",0.5'
    assert lines[3] == 'c_tile_3,-1,"POLYGON EMPTY",0'
    assert [row[0] for row in csv.reader(lines)] == ["ImageId", "b_tile_2", "b_tile_2", "c_tile_3", "a_tile_1"]


def test_rule_5_comments_blank_lines_and_empty_tiles(tmp_path):
    text = f"# made by hand\n\n{PROPOSALS}t1,0,{SQUARE},0.5\n  # a comment, with (( brackets\n   \n"
    text += f't2,-1,{SQUARE},0.9\nt3,-1,"no polygon at all",\nt4,0,POLYGON EMPTY\nt1,1,{SQUARE},\n'
    found = read_proposals(written(tmp_path, text))
    assert {tile: len(there) for tile, there in found.items()} == {"t1": 2, "t2": 0, "t3": 0, "t4": 0}
    assert found["t1"].confidences.tolist() == [0.5, 0.0]


def test_the_rows_of_a_tile_need_not_stand_together(tmp_path):
    rows = [f"{tile},{i},{SQUARE},{i / 8}\n" for i, tile in enumerate("babbca")]
    found = read_proposals(written(tmp_path, PROPOSALS + "".join(rows)))
    assert {tile: (there.confidences * 8).tolist() for tile, there in found.items()} == {
        "b": [0, 2, 3],
        "a": [1, 5],
        "c": [4],
    }


def test_each_part_of_a_multipolygon_is_a_proposal(tmp_path):
    parts = '"MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), ((20 0, 29 0, 29 9, 20 0)))"'
    found = read_proposals(written(tmp_path, f"{PROPOSALS}t,0,{parts},0.7\nt,1,{SQUARE},0.6\n"))["t"]
    assert shapely.area(found.polygons).tolist() == [40.5, 40.5, 400]
    assert found.confidences.tolist() == [0.7, 0.7, 0.6]


def test_columns_may_stand_in_another_order_and_after_a_byte_order_mark(tmp_path):
    text = f"\ufeffConfidence,PolygonWKT_Pix,ImageId,BuildingId\n0.25,{SQUARE},t,0\n"
    assert read_proposals(written(tmp_path, text))["t"].confidences.tolist() == [0.25]


def test_the_outline_of_a_large_noisy_region_is_read(tmp_path):
    teeth = [(x, x % 2) for x in range(40_000)]
    region = shapely.Polygon([*teeth, (39_999, 9), (0, 9)])
    write_proposals(tmp_path / "p.csv", {"t": footprints(region, confidences=(0.5,))})
    assert (tmp_path / "p.csv").stat().st_size > 2 * 131_072
    assert read_proposals(tmp_path / "p.csv")["t"].polygons[0].area == region.area


def test_heights_above_the_plane_are_left_out(tmp_path):
    text = f'{PROPOSALS}t,0,"POLYGON Z ((0 0 5, 20 0 5, 20 20 5, 0 0 5))",1\n'
    assert not read_proposals(written(tmp_path, text))["t"].polygons[0].has_z


def test_polygons_in_rows_of_no_building_are_counted(tmp_path):
    text = f"{PROPOSALS}t1,0,{SQUARE},1\nt1,-1,{SQUARE},1\nt2,-1,POLYGON EMPTY,0\nt3,-1,,0\n"
    assert read_proposals_csv(written(tmp_path, text)).unread == 1


def test_a_file_is_read_in_pieces_as_it_is_in_one(tmp_path, monkeypatch):
    tiles = ["t1", "t2", "t1", "t3", "t2", "t1", "t4"]
    rows = [f'{tile},{i},"POLYGON ((0 0, {i + 1} 0, {i + 1} 1, 0 1, 0 0))",0.{i}\n' for i, tile in enumerate(tiles)]
    path = written(tmp_path, PROPOSALS + "".join(rows) + "t5,-1,POLYGON EMPTY,0\n")
    for chunk in (2, 3, 8, 100):
        monkeypatch.setattr(challenge_csv, "CHUNK", chunk)
        found = read_proposals_csv(path)
        assert list(found.tiles) == ["t1", "t2", "t3", "t4", "t5"]
        assert {tile: shapely.area(rows[0]).tolist() for tile, rows in found.by_tile()} == {
            "t1": [1, 3, 6],
            "t2": [2, 5],
            "t3": [4],
            "t4": [7],
            "t5": [],
        }
        assert found.rows("t1")[1].tolist() == [0.0, 0.2, 0.5]
    monkeypatch.setattr(challenge_csv, "CHUNK", 2)
    with pytest.raises(UserError, match="line 5, tile t3"):
        read_proposals_csv(written(tmp_path, (PROPOSALS + "".join(rows)).replace("0.3", "sure")))


def test_the_parts_of_a_multipolygon_are_all_taken_or_the_first_alone(tmp_path):
    text = '"MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), EMPTY, ((20 0, 29 0, 29 9, 20 9, 20 0)))"'
    table = read_truth_csv(written(tmp_path, f"{LABELS}t,0,{text},5,5,0\nu,0,{SQUARE},3,3,0\n"))
    assert len(table) == 2
    every, first = parts(table.rows("t")), parts(table.rows("t"), first_only=True)
    assert [shapely.area(found[0]).tolist() for found in (every, first)] == [[40.5, 81], [40.5]]
    assert [found[1].tolist() for found in (every, first)] == [[5, 5], [5]]
    assert shapely.area(table.rows("u")[0]).tolist() == [400]
    assert len(table.rows("v")[0]) == 0


# --- labels


def test_labels_have_polygons_and_heights(tmp_path):
    text = f"{LABELS}t1,0,{SQUARE},7.5,7.0,0.1\nt1,1,{SQUARE},,,\nt1,2,{SQUARE},nan,nan,nan\n"
    text += 't2,-1,POLYGON EMPTY,,,\nt3,0,"MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), ((20 0, 29 0, 29 9, 20 0)))",3,3,0\n'
    found = read_labels(written(tmp_path, text))
    assert list(found) == ["t1", "t2", "t3"]
    assert found["t1"].heights.tolist() == pytest.approx([7.5, np.nan, np.nan], nan_ok=True)
    assert len(found["t2"]) == 0
    assert found["t3"].heights.tolist() == [3, 3]
    assert found["t1"].polygons[0].equals(box(0, 0, 20, 20))


@pytest.mark.parametrize("header", ["ImageId,BuildingId,PolygonWKT_Pix", "ImageId,TileBuildingId,PolygonWKT_Pix,Roof"])
def test_labels_without_heights_are_read(tmp_path, header):
    found = read_labels(written(tmp_path, f"{header}\nt1,0,{SQUARE}\n"))
    assert np.isnan(found["t1"].heights).all()
    assert len(found["t1"]) == 1


def test_a_file_of_only_its_header_has_no_tiles(tmp_path):
    assert read_labels(written(tmp_path, LABELS)) == {}
    assert read_proposals(written(tmp_path, PROPOSALS)) == {}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('t,1,"POLYGON ((0 0, 20 0, 20 20"', "POLYGON ((0 0, 20 0, 20 20"),
        ('t,1,"POLYGON ((0 0, 20 0, 0 0))"', "has a ring of less than four points"),
        ('t,1,"POLYGON ((0 0, 9 0, 9 9, 0 0), (1 1, 2 1, 1 1))"', "has a ring of less than four points"),
        ('t,1,"POLYGON ((0 0, 20 0, 20 20, 0 20))"', "(0 0, 20 0, 20 20, 0 20)"),  # not closed
        ('t,1,"POLYGON ((0 0, 20 0, 20 nan, 0 20, 0 0))"', "has a coordinate that is NaN"),
        ('t,1,"POLYGON ((0 0, 20 0, 20 inf, 0 20, 0 0))"', "has a coordinate that is NaN or infinite"),
        ('t,1,"POLYGON ((0 0, 9 0, 9 9, 0 0), (1 1, 2 1, 2 nan, 1 1))"', "has a coordinate that is NaN"),
        ('t,1,"POINT (3 4)"', "is a Point, no polygon"),
        ("t,1,", "'' does not parse"),
        ("t,1,POLYGON ((0 0, 20 0, 20 20, 0 20, 0 0))", "double quotes"),
    ],
)
@pytest.mark.parametrize(("header", "read"), [(LABELS, read_labels), (PROPOSALS, read_proposals)])
def test_a_bad_polygon_is_told_with_its_line(tmp_path, header, read, row, told):
    path = written(tmp_path, f"{header}# a comment\nt,0,{SQUARE},1\n\n{row}\nt,2,{SQUARE},1\n")
    with pytest.raises(UserError) as error:
        read(path)
    assert f"{path}, line 5" in str(error.value)
    assert told in str(error.value)


def test_a_bad_number_is_told_with_its_line_and_tile(tmp_path):
    path = written(tmp_path, f"{PROPOSALS}t7,0,{SQUARE},high\n")
    with pytest.raises(UserError, match=r"line 2, tile t7: Confidence 'high'"):
        read_proposals(path)


@pytest.mark.parametrize("confidence", ["nan", "inf"])
def test_a_confidence_that_orders_nothing_is_told(tmp_path, confidence):
    path = written(tmp_path, f"{PROPOSALS}t,0,{SQUARE},0.5\nt7,0,{SQUARE},{confidence}\n")
    with pytest.raises(UserError, match=r"line 3, tile t7: the Confidence is NaN or infinite"):
        read_proposals(path)


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = written(tmp_path, "ImageId,BuildingId,PolygonWKT_Pix\n")
    with pytest.raises(UserError, match=r"Confidence.*ImageId, BuildingId, PolygonWKT_Pix"):
        read_proposals(path)


@pytest.mark.parametrize("read", [read_labels, read_proposals])
def test_files_that_are_none_are_told(tmp_path, read):
    with pytest.raises(UserError, match=r"gone\.csv"):
        read(tmp_path / "gone.csv")
    with pytest.raises(UserError, match="empty"):
        read(written(tmp_path, ""))
    (tmp_path / "image.tif").write_bytes(b"II*\x00\xff\xfe\x80\x81")
    with pytest.raises(UserError, match=r"image\.tif"):
        read(tmp_path / "image.tif")
