"""Reading and writing of the challenge's CSV formats."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from helpers.errors import user_error
from shapely import box

from sn6.footprints import Footprints
from sn6.formats import challenge_csv
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
COURTYARD = shapely.Polygon([(1, 1), (21, 1), (21, 21.5), (1, 21.5)], [[(4, 4), (8, 4), (8, 8), (4, 8)]])


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def first_number(caught: pytest.ExceptionInfo) -> int:
    """Return the first number in a message after the path: that of the line."""
    return int(re.findall(r"\d+", str(caught.value).replace(str(caught.value.key), ""))[0])


def footprints(*polygons: shapely.Polygon, confidences: tuple[float, ...] = ()) -> Footprints:
    return Footprints(np.array(polygons, dtype=object), np.array(confidences, dtype=np.float64))


TILES = {
    "b_tile_2": footprints(COURTYARD, box(30, 0, 50, 20), confidences=(0.123456789012345, 0.5)),
    "c_tile_3": footprints(),
    "a_tile_1": footprints(box(0.1, 0.2, 20.3, 20), confidences=(1.0,)),
}


def write_proposals(path, tiles):
    with ChallengeCSVWriter(path) as writer:
        for image_id, tile in tiles.items():
            writer.write(image_id, (0.0, 0.0), tile)


# --- proposals, by the rules of the score that concern the file


def test_proposals_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "proposals.csv"
    write_proposals(path, TILES)
    back = read_proposals(path)
    assert list(back) == list(TILES)
    for tile, expected in TILES.items():
        assert shapely.equals_exact(back[tile].polygons, expected.polygons, tolerance=0).all()
        assert (back[tile].confidences == expected.confidences).all()


def test_rule_4_and_5_the_file_names_every_tile_in_the_challenges_format(tmp_path):
    write_proposals(tmp_path / "p.csv", TILES)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] + "\n" == PROPOSALS
    assert lines[2] == 'b_tile_2,1,"POLYGON ((50 0, 50 20, 30 20, 30 0, 50 0))",0.5'
    assert lines[3] == 'c_tile_3,-1,"POLYGON EMPTY",0'
    assert [row[0] for row in csv.reader(lines)] == ["ImageId", "b_tile_2", "b_tile_2", "c_tile_3", "a_tile_1"]


def test_rule_5_comments_blank_lines_and_empty_tiles(tmp_path):
    text = f"# made by hand\n\n{PROPOSALS}t1,0,{SQUARE},0.5\n  # a comment, with (( brackets\n   \n"
    text += f't2,-1,{SQUARE},0.9\nt3,-1,"no polygon at all",\nt4,0,POLYGON EMPTY\nt1,1,{SQUARE},\n'
    proposals = read_proposals(write(tmp_path, text))
    assert {tile: len(rows) for tile, rows in proposals.items()} == {"t1": 2, "t2": 0, "t3": 0, "t4": 0}
    assert proposals["t1"].confidences.tolist() == [0.5, 0.0]


def test_the_rows_of_a_tile_need_not_be_consecutive(tmp_path):
    rows = [f"{tile},{i},{SQUARE},{i / 8}\n" for i, tile in enumerate("babbca")]
    proposals = read_proposals(write(tmp_path, PROPOSALS + "".join(rows)))
    assert {tile: (rows.confidences * 8).tolist() for tile, rows in proposals.items()} == {
        "b": [0, 2, 3],
        "a": [1, 5],
        "c": [4],
    }


def test_each_part_of_a_multipolygon_is_a_proposal(tmp_path):
    pair = '"MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), ((20 0, 29 0, 29 9, 20 0)))"'
    proposals = read_proposals(write(tmp_path, f"{PROPOSALS}t,0,{pair},0.7\nt,1,{SQUARE},0.6\n"))["t"]
    assert shapely.area(proposals.polygons).tolist() == [40.5, 40.5, 400]
    assert proposals.confidences.tolist() == [0.7, 0.7, 0.6]


def test_columns_may_have_another_order_and_follow_a_byte_order_mark(tmp_path):
    text = f"\ufeffConfidence,PolygonWKT_Pix,ImageId,BuildingId\n0.25,{SQUARE},t,0\n"
    assert read_proposals(write(tmp_path, text))["t"].confidences.tolist() == [0.25]


def test_the_outline_of_a_large_noisy_region_is_read(tmp_path):
    teeth = [(x, x % 2) for x in range(40_000)]
    region = shapely.Polygon([*teeth, (39_999, 9), (0, 9)])
    write_proposals(tmp_path / "p.csv", {"t": footprints(region, confidences=(0.5,))})
    assert (tmp_path / "p.csv").stat().st_size > 2 * 131_072
    assert read_proposals(tmp_path / "p.csv")["t"].polygons[0].area == region.area


def test_z_coordinates_are_removed(tmp_path):
    text = f'{PROPOSALS}t,0,"POLYGON Z ((0 0 5, 20 0 5, 20 20 5, 0 0 5))",1\n'
    assert not read_proposals(write(tmp_path, text))["t"].polygons[0].has_z


def test_polygons_in_rows_with_the_building_id_minus_1_are_counted(tmp_path):
    text = f"{PROPOSALS}t1,0,{SQUARE},1\nt1,-1,{SQUARE},1\nt2,-1,POLYGON EMPTY,0\nt3,-1,,0\n"
    assert read_proposals_csv(write(tmp_path, text)).ignored == 1


def test_a_file_is_read_in_chunks_as_at_once(tmp_path, monkeypatch):
    tiles = ["t1", "t2", "t1", "t3", "t2", "t1", "t4"]
    rows = [f'{tile},{i},"POLYGON ((0 0, {i + 1} 0, {i + 1} 1, 0 1, 0 0))",0.{i}\n' for i, tile in enumerate(tiles)]
    path = write(tmp_path, PROPOSALS + "".join(rows) + "t5,-1,POLYGON EMPTY,0\n")
    for chunk in (2, 3, 8, 100):
        monkeypatch.setattr(challenge_csv, "CHUNK", chunk)
        outlines = read_proposals_csv(path)
        assert list(outlines.tiles) == ["t1", "t2", "t3", "t4", "t5"]
        assert {tile: shapely.area(rows[0]).tolist() for tile, rows in outlines.by_tile()} == {
            "t1": [1, 3, 6],
            "t2": [2, 5],
            "t3": [4],
            "t4": [7],
            "t5": [],
        }
        assert outlines.rows("t1")[1].tolist() == [0.0, 0.2, 0.5]
    monkeypatch.setattr(challenge_csv, "CHUNK", 2)
    with user_error("invalid_value", key=path, value="high") as caught:
        read_proposals_csv(write(tmp_path, (PROPOSALS + "".join(rows)).replace("0.3", "high")))
    assert first_number(caught) == 5


def test_of_a_multipolygon_all_parts_are_taken_or_only_the_first(tmp_path):
    text = '"MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), EMPTY, ((20 0, 29 0, 29 9, 20 9, 20 0)))"'
    table = read_truth_csv(write(tmp_path, f"{LABELS}t,0,{text},5,5,0\nu,0,{SQUARE},3,3,0\n"))
    assert len(table) == 2
    every, first = parts(table.rows("t")), parts(table.rows("t"), first_only=True)
    assert [shapely.area(rows[0]).tolist() for rows in (every, first)] == [[40.5, 81], [40.5]]
    assert [rows[1].tolist() for rows in (every, first)] == [[5, 5], [5]]
    assert shapely.area(table.rows("u")[0]).tolist() == [400]
    assert len(table.rows("v")[0]) == 0


# --- labels


def test_labels_have_polygons_and_heights(tmp_path):
    text = f"{LABELS}t1,0,{SQUARE},7.5,7.0,0.1\nt1,1,{SQUARE},,,\nt1,2,{SQUARE},nan,nan,nan\n"
    text += 't2,-1,POLYGON EMPTY,,,\nt3,0,"MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), ((20 0, 29 0, 29 9, 20 0)))",3,3,0\n'
    labels = read_labels(write(tmp_path, text))
    assert list(labels) == ["t1", "t2", "t3"]
    assert labels["t1"].heights.tolist() == pytest.approx([7.5, np.nan, np.nan], nan_ok=True)
    assert len(labels["t2"]) == 0
    assert labels["t3"].heights.tolist() == [3, 3]
    assert labels["t1"].polygons[0].equals(box(0, 0, 20, 20))


@pytest.mark.parametrize("header", ["ImageId,BuildingId,PolygonWKT_Pix", "ImageId,TileBuildingId,PolygonWKT_Pix,Roof"])
def test_labels_without_heights_are_read(tmp_path, header):
    labels = read_labels(write(tmp_path, f"{header}\nt1,0,{SQUARE}\n"))
    assert np.isnan(labels["t1"].heights).all()
    assert len(labels["t1"]) == 1


def test_a_file_with_only_a_header_has_no_tiles(tmp_path):
    assert read_labels(write(tmp_path, LABELS)) == {}
    assert read_proposals(write(tmp_path, PROPOSALS)) == {}


BAD_POLYGONS = {
    "truncated": "POLYGON ((0 0, 20 0, 20 20",
    "three points": "POLYGON ((0 0, 20 0, 0 0))",
    "three points in a hole": "POLYGON ((0 0, 9 0, 9 9, 0 0), (1 1, 2 1, 1 1))",
    "open ring": "POLYGON ((0 0, 20 0, 20 20, 0 20))",
    "NaN": "POLYGON ((0 0, 20 0, 20 nan, 0 20, 0 0))",
    "infinity": "POLYGON ((0 0, 20 0, 20 inf, 0 20, 0 0))",
    "NaN in a hole": "POLYGON ((0 0, 9 0, 9 9, 0 0), (1 1, 2 1, 2 nan, 1 1))",
    "point": "POINT (3 4)",
    "empty field": "",
}


@pytest.mark.parametrize("wkt", BAD_POLYGONS.values(), ids=BAD_POLYGONS)
@pytest.mark.parametrize(("header", "read"), [(LABELS, read_labels), (PROPOSALS, read_proposals)])
def test_an_invalid_polygon_is_an_error_that_names_its_line(tmp_path, header, read, wkt):
    path = write(tmp_path, f'{header}# a comment\nt,0,{SQUARE},1\n\nt,1,"{wkt}"\nt,2,{SQUARE},1\n')
    with user_error("invalid_value", key=path, value=wkt) as caught:
        read(path)
    assert first_number(caught) == 5


@pytest.mark.parametrize(("header", "read"), [(LABELS, read_labels), (PROPOSALS, read_proposals)])
def test_a_polygon_without_quotes_is_an_error_that_names_its_line(tmp_path, header, read):
    path = write(tmp_path, f"{header}t,0,{SQUARE},1\nt,1,POLYGON ((0 0, 20 0, 20 20, 0 20, 9 9, 8 8, 0 0))\n")
    with user_error("unreadable", key=path) as caught:
        read(path)
    assert first_number(caught) == 3


@pytest.mark.parametrize("confidence", ["high", "nan", "inf"])
def test_a_confidence_that_is_not_a_finite_number_is_an_error_that_names_its_line(tmp_path, confidence):
    path = write(tmp_path, f"{PROPOSALS}t,0,{SQUARE},0.5\nt7,0,{SQUARE},{confidence}\n")
    with user_error("invalid_value", key=path, value=confidence) as caught:
        read_proposals(path)
    assert first_number(caught) == 3


def test_a_missing_column_is_an_error(tmp_path):
    path = write(tmp_path, "ImageId,BuildingId,PolygonWKT_Pix\n")
    with user_error("wrong_data", key=path, value="Confidence"):
        read_proposals(path)


@pytest.mark.parametrize("read", [read_labels, read_proposals])
def test_files_that_cannot_be_read_are_errors(tmp_path, read):
    with user_error("not_found", key=tmp_path / "missing.csv"):
        read(tmp_path / "missing.csv")
    empty = write(tmp_path, "")
    with user_error("unreadable", key=empty):
        read(empty)
    (tmp_path / "image.tif").write_bytes(b"II*\x00\xff\xfe\x80\x81")
    with user_error("unreadable", key=tmp_path / "image.tif"):
        read(tmp_path / "image.tif")
