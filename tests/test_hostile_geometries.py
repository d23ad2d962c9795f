"""Geometries that crash GEOS or have no place end in one line; collections give their polygons."""

import json
import os
import resource
import struct
import time

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from helpers.errors import user_error
from helpers.forked import python_m
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import GeometryCollection, LineString, MultiPolygon, Point, box

from sn6.datasets.vector_labels import LabelColumns, read_buildings
from sn6.errors import UserError
from sn6.footprints.ground import TileGrid
from sn6.formats.challenge_csv import read_proposals, read_proposals_csv, read_truth_csv
from sn6.formats.files import read_truth
from sn6.formats.geojson import read_geojson_labels
from sn6.formats.nesting import MAX_DEPTH, is_deep_wkb, is_too_deep, unpack_collections

HEADER = "ImageId,BuildingId,PolygonWKT_Pix,Confidence\n"
SQUARE = "POLYGON((0 0,0 9,9 9,9 0,0 0))"
DEPTH = 100_000
GRID = TileGrid({"t1": (500_000.0, 5_000_009.0)}, "EPSG:32631", 1.0)
MIXED = GeometryCollection([box(500_000, 5_000_000, 500_009, 5_000_009), Point(500_001, 5_000_001), LineString()])


def nested(depth, inner=None):
    """Return a point in collections, `depth` of them."""
    geometry = inner or Point(1, 1)
    for _ in range(depth):
        geometry = GeometryCollection([geometry])
    return geometry


def deep_wkb(depth):
    return b"\x01\x07\x00\x00\x00\x01\x00\x00\x00" * depth + b"\x01\x01\x00\x00\x00" + struct.pack("<dd", 1, 1)


def write_csv(folder, wkt):
    path = folder / "a.csv"
    path.write_text(f'{HEADER}t1,0,"{wkt}",1\n')
    return path


def write_geojson(folder, geometry, **members):
    path = folder / "a.geojson"
    feature = {"type": "Feature", "properties": {"image_id": "t1", "confidence": 1}, "geometry": None}
    text = json.dumps({"type": "FeatureCollection", **members, "features": [feature]})
    path.write_text(text.replace('"geometry": null', f'"geometry": {geometry}'))
    return path


def write_parquet(folder, wkb):
    """A GeoParquet with these bytes in place of its geometry."""
    path = folder / "a.parquet"
    layer = geopandas.GeoDataFrame({"image_id": ["t1"]}, geometry=[box(0, 0, 1, 1)], crs="EPSG:32631")
    layer.to_parquet(path)
    table = pq.read_table(path)
    index = table.schema.get_field_index("geometry")
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array([wkb], pa.binary())), path)
    return path


@pytest.mark.parametrize(
    "wkt",
    [
        "GEOMETRYCOLLECTION(" * DEPTH + "POINT(1 1)" + ")" * DEPTH,
        "POLYGON " + "(" * DEPTH + ")" * DEPTH,
        "MULTIPOLYGON " + "(" * DEPTH,
        "GEOMETRYCOLLECTION(POINT(1 1), " * DEPTH,
        "CURVEPOLYGON(CIRCULARSTRING(0 0,4 0,4 4,0 4,0 0))",
        "MULTISURFACE(((0 0,0 9,9 9,9 0,0 0)))",
        "GEOMETRYCOLLECTION(CURVEPOLYGON(CIRCULARSTRING(0 0,4 0,4 4,0 4,0 0)))",
        "POLYGON((0 0,0 1e308,1e308 1e308,1e308 0,0 0))",
        "POLYGON((0 0,0 2e9,9 9,9 0,0 0))",
        f"POLYGON((0 0,0 {'9' * 100_000},9 9,9 0,0 0))",
        "POLYGON((0 0,0 nan,9 9,9 0,0 0))",
        "POLYGON((0 0,0 -inf,9 9,9 0,0 0))",
        "GEOMETRYCOLLECTION(POINT(1 1))",
    ],
    ids=lambda wkt: wkt[:24],
)
@pytest.mark.parametrize("read", [read_proposals_csv, read_truth_csv])
def test_wkt_that_is_no_polygon_is_one_line(tmp_path, wkt, read):
    path, started = write_csv(tmp_path, wkt), time.monotonic()
    with user_error("invalid_value", path):
        read(path)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("geometry", "kind"),
    [
        ("[" * DEPTH + "]" * DEPTH, "unreadable"),
        ('{"a":' * DEPTH + "1" + "}" * DEPTH, "unreadable"),
        ('{"type":"Polygon","coordinates":' + "[" * DEPTH + "]" * DEPTH + "}", "unreadable"),
        ('{"type":"Polygon","coordinates":' + "9" * 5000 + "}", "unreadable"),
        ('{"type":"GeometryCollection","geometries":[' * 100 + "]}" * 100, "invalid_value"),
        ('{"type":"Polygon","coordinates":[[[0,0],[0,1e308],[1e308,9],[9,0],[0,0]]]}', "invalid_value"),
        ('{"type":"Polygon","coordinates":[[[0,0],[0,NaN],[9,9],[9,0],[0,0]]]}', "invalid_value"),
        ('{"type":"Polygon","coordinates":[[[0,0],[0,1e999],[9,9],[9,0],[0,0]]]}', "invalid_value"),
        ('{"type":"CurvePolygon","coordinates":[]}', "invalid_value"),
    ],
    ids=lambda value: value[:40],
)
def test_geojson_that_is_no_polygon_is_one_line(tmp_path, geometry, kind):
    path = write_geojson(tmp_path, geometry)
    with user_error(kind, path):
        read_truth(path, GRID)
    with user_error(kind, path):
        read_geojson_labels(path, (0.0, 9.0), "EPSG:32631", 1.0)
    with pytest.raises(UserError) as caught:
        read_buildings(path, LabelColumns())
    assert caught.value.kind in ("unreadable", "wrong_data")


@pytest.mark.parametrize("crs", ["EPSG:32631", [1], 5, {"properties": 7}, {"properties": {"name": None}}, {}])
def test_a_member_crs_without_a_name_is_one_line(tmp_path, crs):
    path = write_geojson(tmp_path, shapely.to_geojson(MIXED.geoms[0]), crs=crs)
    with user_error("wrong_data", path, "crs"):
        read_truth(path, GRID)


@pytest.mark.parametrize("pixel_size", [0, -1, float("nan"), 10**400])
def test_a_list_of_tiles_without_a_place_is_one_line(tmp_path, pixel_size):
    path = write_geojson(tmp_path, "null", tiles={"t1": [0, 0]}, pixel_size=pixel_size)
    with user_error("unreadable", path, "tiles"):
        read_truth(path)


def test_wkb_that_crashes_geos_is_one_line(tmp_path):
    path = write_parquet(tmp_path, deep_wkb(DEPTH))
    with user_error("invalid_value", path):
        read_truth(path, GRID)
    with user_error("wrong_data", path):
        read_buildings(path, LabelColumns())


def test_a_command_refuses_a_deep_file_within_a_gigabyte(tmp_path):
    path = write_csv(tmp_path, "GEOMETRYCOLLECTION(" * DEPTH)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = python_m(["sn6.score", f"truth={path}", f"proposals={path}"], tmp_path)
    assert (done.status, done.err.count("\n")) == (1, 1), done.err
    assert max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) < 2**20 * 1.5  # with all imports
    assert os.listdir(tmp_path) == [path.name]


def test_wkb_is_nested_as_deeply_as_it_is_written():
    for depth in (1, MAX_DEPTH, MAX_DEPTH + 1, 200):
        for wkb in (shapely.to_wkb(nested(depth)), shapely.to_wkb(nested(depth), byte_order=0), deep_wkb(depth)):
            assert is_too_deep(wkb) == (depth > MAX_DEPTH), depth
            assert is_too_deep(wkb[:-9]) == (depth > MAX_DEPTH), depth


def test_many_geometries_beside_one_another_are_not_deep():
    many = MultiPolygon([box(i, 0, i + 0.5, 1) for i in range(500)])
    for geometry in (many, GeometryCollection([*many.geoms]), shapely.force_3d(many), shapely.set_srid(many, 4326)):
        assert not is_too_deep(shapely.to_wkb(geometry, include_srid=True))
    assert not is_too_deep(shapely.to_wkb(shapely.force_3d(many), flavor="iso"))


@settings(derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_looked_at(data):
    is_deep_wkb(data)
    is_too_deep(data)


def test_a_collection_gives_its_polygons(tmp_path):
    """One of them in a collection of its own; a point, an empty line and a line are left out."""
    wkt = f"GEOMETRYCOLLECTION({SQUARE}, POINT(1 1), GEOMETRYCOLLECTION({SQUARE}, LINESTRING(0 0,1 1)))"
    path = write_csv(tmp_path, wkt)
    assert shapely.area(read_proposals(path)["t1"].polygons).tolist() == [81, 81]
    assert read_proposals_csv(path).left_out == 2
    path = write_geojson(tmp_path, shapely.to_geojson(MIXED))
    outlines = read_truth(path, GRID)
    assert shapely.area(outlines.rows("t1")[0]).tolist() == [81]
    assert outlines.left_out == 2
    layer = tmp_path / "a.gpkg"
    geopandas.GeoDataFrame(geometry=[MIXED], crs="EPSG:32631").to_file(layer)
    buildings = read_buildings(layer, LabelColumns())
    assert shapely.area(buildings.polygons).tolist() == [81]
    assert len(buildings.notes) == 1


def test_the_score_notes_what_collections_lose(tmp_path, sn6_command):
    truth = write_csv(tmp_path, f"GEOMETRYCOLLECTION({SQUARE.replace('9', '90')}, POINT(1 1))")
    done = sn6_command("score", f"truth={truth}", f"proposals={truth}", f"out={tmp_path}/score.json")
    assert done.status == 0, done.err
    assert [line for line in done.out.splitlines() if "GeometryCollection" in line]


def test_other_geometries_stay_as_they_are():
    geometries = np.array([box(0, 0, 1, 1), Point(1, 1), None, GeometryCollection()], dtype=object)
    unpacked, left_out = unpack_collections(geometries)
    assert unpacked.tolist() == geometries.tolist()
    assert left_out == 0


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_named(tmp_path, separator):
    path = tmp_path / "a.csv"
    path.write_text(HEADER.replace(",", separator) + separator.join(("t1", "0", f'"{SQUARE}"', "1\n")))
    with user_error("wrong_data", path, separator):
        read_proposals_csv(path)


def test_a_column_that_is_named_twice_is_an_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER.replace("BuildingId", "ImageId"))
    with user_error("wrong_data", path, "ImageId"):
        read_proposals_csv(path)
