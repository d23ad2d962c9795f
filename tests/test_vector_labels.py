"""Read buildings from vector files of several formats and CRSs, and cut them to tiles."""

import geopandas
import numpy as np
import pytest
import shapely
from helpers.errors import user_error
from shapely import LineString, MultiPolygon, Point, Polygon, box

from sn6.datasets.vector_labels import LabelColumns, read_buildings

ZONE = "EPSG:25833"
WEST, NORTH = 390_000.0, 5_820_000.0
HOUSES = [box(WEST + 10, NORTH - 30, WEST + 20, NORTH - 20), box(WEST + 90, NORTH - 60, WEST + 110, NORTH - 50)]
COURT = Polygon(
    box(WEST + 40, NORTH - 40, WEST + 60, NORTH - 20).exterior,
    [box(WEST + 45, NORTH - 35, WEST + 55, NORTH - 25).exterior],
)


def write(path, shapes, crs=ZONE, **attributes):
    geopandas.GeoDataFrame(attributes or {"number": range(len(shapes))}, geometry=shapes, crs=ZONE).to_crs(crs).to_file(
        path
    )
    return path


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.fgb", "a.shp"])
@pytest.mark.parametrize("crs", [ZONE, "EPSG:4326", "EPSG:3857"])
def test_buildings_are_at_their_places_in_any_format_and_crs(tmp_path, name, crs):
    buildings = read_buildings(write(tmp_path / name, [*HOUSES, COURT], crs), LabelColumns()).to_crs(ZONE)
    assert len(buildings) == 3
    for read, written in zip(
        sorted(buildings.polygons, key=lambda one: one.bounds),
        sorted([*HOUSES, COURT], key=lambda one: one.bounds),
        strict=True,
    ):
        assert read.symmetric_difference(written).area < 0.01 * written.area
    assert buildings.notes == ()


def test_a_tile_has_the_parts_of_the_buildings_on_it_in_its_pixels(tmp_path):
    buildings = read_buildings(write(tmp_path / "a.gpkg", [*HOUSES, COURT]), LabelColumns())
    labels = buildings.labels((WEST, NORTH - 100, WEST + 100, NORTH), 0.5)
    areas = sorted(shapely.area(labels.polygons) * 0.25)
    assert areas == pytest.approx([100, 100, 300])  # the second house is cut in half; the court has a hole
    house = min(labels.polygons, key=lambda one: one.bounds)
    assert house.bounds == pytest.approx((20, 40, 40, 60))  # x, then y from the top
    assert np.isnan(labels.heights).all()
    assert len(buildings.labels((WEST + 200, NORTH - 100, WEST + 300, NORTH), 0.5)) == 0
    assert len(buildings.labels((WEST + 110, NORTH - 100, WEST + 300, NORTH), 0.5)) == 0  # it only touches the tile


def test_a_building_cut_into_parts_has_as_many_labels(tmp_path):
    bridge = Polygon([(0, 0), (30, 0), (30, 20), (20, 20), (20, 10), (10, 10), (10, 20), (0, 20)])
    moved = shapely.transform(bridge, lambda xy: np.add(xy, (WEST, NORTH)))
    labels = read_buildings(write(tmp_path / "a.gpkg", [moved]), LabelColumns()).labels(
        (WEST, NORTH + 10, WEST + 50, NORTH + 60), 1.0
    )
    assert sorted(shapely.area(labels.polygons)) == pytest.approx([100, 100])


def test_attributes_select_buildings_and_give_heights_and_classes(tmp_path):
    path = write(tmp_path / "a.gpkg", [*HOUSES, COURT], height=[3.5, None, 12.0], kind=["shed", "house", "house"])
    buildings = read_buildings(path, LabelColumns("kind = 'house'", "height", "kind"))
    assert buildings.categories.tolist() == ["house", "house"]
    np.testing.assert_array_equal(buildings.heights, [np.nan, 12.0])


def test_what_is_repaired_and_left_out_is_counted(tmp_path):
    bow_tie = Polygon([(WEST, NORTH), (WEST + 10, NORTH + 10), (WEST + 10, NORTH), (WEST, NORTH + 10)])
    buildings = read_buildings(write(tmp_path / "a.gpkg", [bow_tie, None, MultiPolygon(HOUSES)]), LabelColumns())
    assert sum(shapely.area(buildings.polygons)) == pytest.approx(50 + 100 + 200)
    assert shapely.is_valid(buildings.polygons).all()
    assert len(buildings.notes) == 3


@pytest.mark.parametrize(
    ("shapes", "columns", "kind", "value"),
    [
        ([Point(WEST, NORTH)], LabelColumns(), "wrong_data", ["Point"]),
        ([LineString(HOUSES[0].exterior)], LabelColumns(), "wrong_data", ["LineString"]),
        (HOUSES, LabelColumns(height="hight"), "not_found", "hight"),
        (HOUSES, LabelColumns(where="number > 7"), "wrong_data", None),
        (HOUSES, LabelColumns(where="numbr > 7"), "unreadable", None),
    ],
    ids=["points", "lines", "attribute", "condition that holds nowhere", "broken condition"],
)
def test_wrong_files_are_one_line(tmp_path, shapes, columns, kind, value):
    path = write(tmp_path / "a.gpkg", shapes)
    with user_error(kind, path, value):
        read_buildings(path, columns)


def test_a_file_without_a_crs_or_that_is_none_is_an_error(tmp_path):
    path = write(tmp_path / "a.shp", HOUSES)
    path.with_suffix(".prj").unlink()
    with user_error("wrong_data", path):
        read_buildings(path, LabelColumns())
    with user_error("not_found", tmp_path / "b.gpkg"):
        read_buildings(tmp_path / "b.gpkg", LabelColumns())
    (tmp_path / "c.gpkg").write_text("nonsense")
    with user_error("unreadable", tmp_path / "c.gpkg"):
        read_buildings(tmp_path / "c.gpkg", LabelColumns())
