"""Reading and writing of GeoJSON: labels of one tile, and a collection of all tiles."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from helpers.errors import user_error
from shapely import box

from sn6.footprints import Footprints
from sn6.formats.geojson import GeoJSONWriter, read_geojson_labels, read_outlines

COURTYARD = shapely.Polygon([(1, 1), (21, 1), (21, 21.5), (1, 21.5)], [[(4, 4), (8, 4), (8, 8), (4, 8)]])

CRS, PIXEL_SIZE = "EPSG:32631", 0.5


def write(folder: Path, text: str, name: str = "file.geojson") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def footprints(*polygons: shapely.Polygon, confidences: tuple[float, ...] = ()) -> Footprints:
    return Footprints(np.array(polygons, dtype=object), np.array(confidences, dtype=np.float64))


TILES = {
    "b_tile_2": footprints(COURTYARD, box(30, 0, 50, 20), confidences=(0.123456789012345, 0.5)),
    "c_tile_3": footprints(),
    "a_tile_1": footprints(box(0.1, 0.2, 20.3, 20), confidences=(1.0,)),
}


def write_geojson(path, tiles, corners):
    with GeoJSONWriter(path, CRS, PIXEL_SIZE) as writer:
        for image_id, tile in tiles.items():
            writer.write(image_id, corners[image_id], tile)


def collection(*geometries: dict | None, **members) -> str:
    features = [{"type": "Feature", "properties": {"x": 1}, "geometry": geometry} for geometry in geometries]
    return json.dumps({"type": "FeatureCollection", **members, "features": features})


def in_crs(name: str) -> dict:
    return {"crs": {"type": "name", "properties": {"name": name}}}


HOUSE = {
    "type": "Polygon",
    "coordinates": [[[591560, 5750000, 3], [591570, 5750000, 3], [591570, 5749980, 3], [591560, 5750000, 3]]],
}


POINT = {"type": "Point", "coordinates": [591560, 5750000]}
NOT_A_NUMBER = {"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [1, 1], [0, 0]]]}
DEGREES = {"type": "Polygon", "coordinates": [[[4.4, 51.9], [4.5, 51.9], [4.5, 52], [4.4, 51.9]]]}


@pytest.mark.parametrize("members", [{}, in_crs("urn:ogc:def:crs:EPSG::32631"), in_crs("EPSG:32631"), {"crs": None}])
def test_geojson_in_metres_is_converted_to_pixels(tmp_path, members):
    path = write(tmp_path, collection(None, HOUSE, **members))
    labels = read_geojson_labels(path, (591550.0, 5750010.0), CRS, PIXEL_SIZE)
    assert list(labels.polygons[0].exterior.coords) == [(20, 20), (40, 20), (40, 60), (20, 20)]
    assert len(labels) == 1
    assert np.isnan(labels.heights).all()


def test_the_parts_of_a_geojson_multipolygon_are_buildings(tmp_path):
    both = {"type": "MultiPolygon", "coordinates": [HOUSE["coordinates"]] * 2}
    assert len(read_geojson_labels(write(tmp_path, collection(both)), (591550.0, 5750010.0), CRS, PIXEL_SIZE)) == 2


@pytest.mark.parametrize("text", ["", "  \n", collection(), collection(None)])
def test_geojson_of_a_tile_without_buildings(tmp_path, text):
    assert len(read_geojson_labels(write(tmp_path, text), (0.0, 0.0), CRS, PIXEL_SIZE)) == 0


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"type": "FeatureColl', "unreadable", None),
        ("[1, 2]", "wrong_data", None),
        ('{"type": "Topology"}', "wrong_data", None),
        ('{"type": "FeatureCollection", "features": ["house"]}', "wrong_data", None),
        (collection(POINT), "invalid_value", json.dumps(POINT)),
        (collection(NOT_A_NUMBER), "invalid_value", json.dumps(NOT_A_NUMBER)),
        (collection(HOUSE, **in_crs("urn:ogc:def:crs:OGC:1.3:CRS84")), "wrong_data", "urn:ogc:def:crs:OGC:1.3:CRS84"),
        (collection(HOUSE, **in_crs("urn:ogc:def:crs:EPSG::28992")), "wrong_data", "EPSG:28992"),
        (collection(DEGREES), "wrong_data", None),
    ],
)
def test_geojson_that_cannot_be_used_is_an_error(tmp_path, text, kind, value):
    path = write(tmp_path, text, "houses.geojson")
    with user_error(kind, key=path, value=value):
        read_geojson_labels(path, (591550.0, 5750010.0), CRS, PIXEL_SIZE)


CORNERS = {"b_tile_2": (591550.0, 5750000.0), "c_tile_3": (592000.0, 5750000.0), "a_tile_1": (591550.25, 5749550.0)}


def test_footprints_are_written_in_metres_and_read_back(tmp_path):
    write_geojson(tmp_path / "f.geojson", TILES, CORNERS)
    content = json.loads((tmp_path / "f.geojson").read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32631"
    assert content["pixel_size"] == 0.5
    assert list(content["tiles"].items()) == [(tile, list(corner)) for tile, corner in CORNERS.items()]
    assert [feature["properties"]["image_id"] for feature in content["features"]] == ["b_tile_2"] * 2 + ["a_tile_1"]
    assert content["features"][1]["properties"] == {
        "id": "b_tile_2_1",
        "image_id": "b_tile_2",
        "confidence": 0.5,
        "area_m2": 100.0,
    }
    corners = content["features"][1]["geometry"]["coordinates"][0]
    assert sorted(set(map(tuple, corners))) == [
        (591565.0, 5749990.0),
        (591565.0, 5750000.0),
        (591575.0, 5749990.0),
        (591575.0, 5750000.0),
    ]
    back = read_geojson_labels(tmp_path / "f.geojson", (591550.0, 5750000.0), CRS, PIXEL_SIZE)
    assert back.polygons[0].equals(COURTYARD)


def test_geopandas_reads_the_geojson(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    write_geojson(tmp_path / "f.geojson", TILES, CORNERS)
    table = geopandas.read_file(tmp_path / "f.geojson")
    assert table.crs.to_epsg() == 32631
    assert table.area.tolist() == pytest.approx(table["area_m2"].tolist(), abs=0.02)
    assert table.total_bounds.tolist() == [591550.3, 5749540.0, 591575.0, 5750000.0]
    write_geojson(tmp_path / "none.geojson", {"c_tile_3": footprints()}, CORNERS)
    assert geopandas.read_file(tmp_path / "none.geojson").empty


def test_an_image_without_crs_gives_a_file_without_one(tmp_path):
    with GeoJSONWriter(tmp_path / "f.geojson", crs=None, pixel_size=1.0) as writer:
        writer.write("image", (0.0, 0.0), footprints(box(2, 3, 12, 23), confidences=(0.5,)))
    content = json.loads((tmp_path / "f.geojson").read_text())
    assert "crs" not in content
    assert content["features"][0]["properties"]["area_m2"] == 200
    assert shapely.from_geojson(json.dumps(content["features"][0]["geometry"])).equals(box(2, -23, 12, -3))
    polygons, confidences = read_outlines(tmp_path / "f.geojson", "confidence").rows("image")
    assert polygons[0].equals(box(2, 3, 12, 23))
    assert confidences.tolist() == [0.5]


def test_a_collection_is_read_back_tile_by_tile_with_empty_tiles(tmp_path):
    write_geojson(tmp_path / "f.geojson", TILES, CORNERS)
    back = read_outlines(tmp_path / "f.geojson", "confidence")
    assert back.tiles == CORNERS
    for tile, (polygons, confidences) in back.by_tile():
        assert [p.equals(q) for p, q in zip(polygons, TILES[tile].polygons, strict=True)] == [True] * len(polygons)
        assert confidences.tolist() == TILES[tile].confidences.tolist()
