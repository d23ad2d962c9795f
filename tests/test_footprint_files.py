"""Footprints on disk: the challenge's CSVs and GeoJSON."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import box

from sn6.errors import UserError
from sn6.footprints import Footprints
from sn6.footprints.files import (
    read_geojson_labels,
    read_labels,
    read_proposals,
    write_geojson,
    write_proposals,
)

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
        ('t,1,"POLYGON ((0 0, 20 0, 0 0))"', "POLYGON ((0 0, 20 0, 0 0))"),
        ('t,1,"POLYGON ((0 0, 20 0, 20 20, 0 20))"', "(0 0, 20 0, 20 20, 0 20)"),  # not closed
        ('t,1,"POLYGON ((0 0, 20 0, 20 nan, 0 20, 0 0))"', "nan"),
        ('t,1,"POINT (3 4)"', "POINT (3 4)"),
        ("t,1,", "''"),
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


# --- GeoJSON


def collection(*geometries: dict | None, **members) -> str:
    features = [{"type": "Feature", "properties": {"x": 1}, "geometry": geometry} for geometry in geometries]
    return json.dumps({"type": "FeatureCollection", **members, "features": features})


def in_crs(name: str) -> dict:
    return {"crs": {"type": "name", "properties": {"name": name}}}


HOUSE = {
    "type": "Polygon",
    "coordinates": [[[591560, 5750000, 3], [591570, 5750000, 3], [591570, 5749980, 3], [591560, 5750000, 3]]],
}


@pytest.mark.parametrize("members", [{}, in_crs("urn:ogc:def:crs:EPSG::32631"), in_crs("EPSG:32631"), {"crs": None}])
def test_geojson_in_metres_becomes_pixels(tmp_path, members):
    path = written(tmp_path, collection(None, HOUSE, **members))
    labels = read_geojson_labels(path, (591550.0, 5750010.0, 0.5))
    assert list(labels.polygons[0].exterior.coords) == [(20, 20), (40, 20), (40, 60), (20, 20)]
    assert len(labels) == 1
    assert np.isnan(labels.heights).all()


def test_the_parts_of_a_geojson_multipolygon_are_buildings(tmp_path):
    both = {"type": "MultiPolygon", "coordinates": [HOUSE["coordinates"]] * 2}
    assert len(read_geojson_labels(written(tmp_path, collection(both)), (591550.0, 5750010.0, 0.5))) == 2


@pytest.mark.parametrize("text", ["", "  \n", collection(), collection(None)])
def test_geojson_of_a_tile_without_buildings(tmp_path, text):
    assert len(read_geojson_labels(written(tmp_path, text), (0.0, 0.0, 0.5))) == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"type": "FeatureColl', "JSON"),
        ("[1, 2]", "FeatureCollection"),
        ('{"type": "Topology"}', "FeatureCollection"),
        ('{"type": "FeatureCollection", "features": ["house"]}', "FeatureCollection"),
        (collection({"type": "Point", "coordinates": [591560, 5750000]}), "Point"),
        (collection({"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [1, 1], [0, 0]]]}), "polygon"),
        (collection(HOUSE, **in_crs("urn:ogc:def:crs:OGC:1.3:CRS84")), "reproject"),
        (collection(HOUSE, **in_crs("urn:ogc:def:crs:EPSG::28992")), "28992.*EPSG:32631"),
        (
            collection({"type": "Polygon", "coordinates": [[[4.4, 51.9], [4.5, 51.9], [4.5, 52], [4.4, 51.9]]]}),
            "degrees",
        ),
    ],
)
def test_geojson_that_does_not_do_is_told_with_its_path(tmp_path, text, told):
    path = written(tmp_path, text, "houses.geojson")
    with pytest.raises(UserError, match=f"houses.geojson.*{told}"):
        read_geojson_labels(path, (591550.0, 5750010.0, 0.5))


CORNERS = {"b_tile_2": (591550.0, 5750000.0), "c_tile_3": (592000.0, 5750000.0), "a_tile_1": (591550.25, 5749550.0)}


def test_footprints_come_back_from_geojson_where_they_were(tmp_path):
    write_geojson(tmp_path / "f.geojson", TILES, CORNERS)
    content = json.loads((tmp_path / "f.geojson").read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32631"
    assert content["tiles"] == ["b_tile_2", "c_tile_3", "a_tile_1"]
    assert [feature["properties"]["image_id"] for feature in content["features"]] == ["b_tile_2"] * 2 + ["a_tile_1"]
    assert content["features"][1]["properties"] == {"image_id": "b_tile_2", "confidence": 0.5, "area_m2": 100.0}
    corners = content["features"][1]["geometry"]["coordinates"][0]
    assert sorted(set(map(tuple, corners))) == [
        (591565.0, 5749990.0),
        (591565.0, 5750000.0),
        (591575.0, 5749990.0),
        (591575.0, 5750000.0),
    ]
    back = read_geojson_labels(tmp_path / "f.geojson", (591550.0, 5750000.0, 0.5))
    assert back.polygons[0].equals(COURT)


def test_geojson_opens_in_a_gis(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    write_geojson(tmp_path / "f.geojson", TILES, CORNERS)
    table = geopandas.read_file(tmp_path / "f.geojson")
    assert table.crs.to_epsg() == 32631
    assert table.area.tolist() == pytest.approx(table["area_m2"].tolist(), abs=0.02)
    assert table.total_bounds.tolist() == [591550.3, 5749540.0, 591575.0, 5750000.0]
    write_geojson(tmp_path / "none.geojson", {"c_tile_3": footprints()}, CORNERS)
    assert geopandas.read_file(tmp_path / "none.geojson").empty
