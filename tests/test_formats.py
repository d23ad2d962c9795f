"""Files of footprints are read back by other programs, with their CRS and attributes, and hold the same bytes again."""

import itertools
import json
import warnings
from xml.etree import ElementTree

import dask_geopandas
import geojson_pydantic
import geopandas
import geoparquet_validator
import numpy as np
import pandas
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
import torch
from helpers.commands import assert_fails
from helpers.errors import user_error
from helpers.networks import random_network, write_network
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate
from shapely import box

from sn6.footprints import Footprints
from sn6.formats.files import WRITERS, check_formats, writer_of
from sn6.formats.writer import WGS84, Attributes
from sn6.prediction.heights import with_heights
from sn6.prediction.raster_images import sensing_time

CRS = "EPSG:32631"
ON_GROUND = ("gpkg", "geojson", "parquet", "fgb")
COURTYARD = shapely.Polygon([(1, 1), (21, 1), (21, 21.5), (1, 21.5)], [[(4, 4), (8, 4), (8, 8), (4, 8)]])
TIME = "2019-08-22T07:06:10Z"
FOUND = Footprints(
    np.array([COURTYARD, box(30, 0, 50, 20)]),
    np.array([0.75, 0.5]),
    classes=np.array([2, 1]),
    looks=np.array([3, 4]),
    heights=np.array([np.nan, 7.5]),
)


def write(path, crs=CRS, name=None, **attributes):
    """Write two tiles, and the first one again, with all attributes."""
    attributes = {"heights": True, "looks": True, "times": {"a": TIME}, "model": "0123456789ab"} | attributes
    with writer_of(name or path.suffix[1:])(path, crs, 0.5, ("house", "shed"), Attributes(**attributes)) as file:
        for image_id in ("b", "a", "b"):
            file.write(image_id, (591550.0, 5750000.0), FOUND, CRS)
    return path


def by_dask(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pandas.errors.Pandas4Warning)  # of dask
        return dask_geopandas.read_parquet(path).compute()


READERS = [
    *((name, geopandas.read_file) for name in ("gpkg", "geojson", "fgb")),
    *((name, pyogrio.read_dataframe) for name in ("gpkg", "geojson", "fgb")),
    ("gpkg", lambda path: geopandas.read_file(path, use_arrow=True)),
    ("fgb", lambda path: geopandas.read_file(path, use_arrow=True)),
    ("parquet", geopandas.read_parquet),
    ("parquet", lambda path: geopandas.GeoDataFrame.from_arrow(pq.read_table(path))),
    ("parquet", by_dask),
]


@pytest.mark.parametrize(("name", "read"), READERS)
def test_other_programs_read_crs_geometries_and_attributes(name, read, tmp_path):
    table = read(write(tmp_path / f"f.{name}")).set_index("id")
    assert table.crs.to_epsg() == 32631
    assert sorted(table.index) == ["a_0", "a_1", "b_0", "b_1", "b_2", "b_3"]
    assert set(table.columns) - {"bbox"} == {
        *("image_id", "confidence", "area_m2", "category", "height_m", "looks", "time", "model", "geometry")
    }
    court, shed = table.loc["b_2"], table.loc["a_1"]
    on_ground = shapely.transform(COURTYARD, lambda xy: xy * (0.5, -0.5) + (591550, 5750000))
    assert court.geometry.equals(on_ground)
    assert shed.geometry.equals(box(591565, 5749990, 591575, 5750000))
    assert (court.confidence, court.area_m2, court.category, court.looks) == (0.75, (20 * 20.5 - 16) / 4, "shed", 3)
    assert (shed.confidence, shed.area_m2, shed.category, shed.looks) == (0.5, 100, "house", 4)
    assert (shed.image_id, shed.model, shed.height_m) == ("a", "0123456789ab", 7.5)
    assert pandas.isna(court.height_m)
    assert pandas.isna(court.time)
    assert pandas.Timestamp(shed.time) == pandas.Timestamp(TIME)


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_footprints_give_the_same_bytes_and_nothing_else(name, tmp_path):
    kept = []
    for folder in ("one", "two"):
        path = tmp_path / folder / f"f.{name}"
        if name == "csv":
            with writer_of(name)(path, ("house", "shed")) as file:
                file.write("a", (0.0, 0.0), FOUND, CRS)
        else:
            write(path)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        kept.append(path.read_bytes())
    assert kept[0] == kept[1]
    assert len(kept[0]) > 100


@pytest.mark.parametrize("name", ON_GROUND)
def test_a_file_without_footprints_or_crs_is_read_too(name, tmp_path):
    with writer_of(name)(tmp_path / f"none.{name}", CRS, 0.5) as file:
        file.write("a", (591550.0, 5750000.0), FOUND[np.zeros(2, dtype=bool)])
    with writer_of(name)(tmp_path / f"pixels.{name}", None, 1.0) as file:
        file.write("a", (0.0, 0.0), FOUND)
    read = geopandas.read_parquet if name == "parquet" else geopandas.read_file
    assert len(read(tmp_path / f"none.{name}")) == 0
    table = read(tmp_path / f"pixels.{name}").set_index("id")
    assert table.loc["a_1"].geometry.equals(box(30, -20, 50, 0))
    assert name == "geojson" or table.crs is None  # which GeoJSON cannot say


@pytest.mark.parametrize("crs", [CRS, WGS84, None])
def test_geoparquet_conforms_to_the_official_schema(crs, tmp_path):
    with writer_of("parquet")(tmp_path / "f.parquet", crs, 0.5) as file:
        file.write("a", (591550.0, 5750000.0), FOUND, crs and CRS)
    report = geoparquet_validator.check(str(tmp_path / "f.parquet"))
    assert geoparquet_validator.failed(report) == []
    passed = {one["id"] for one in report["outcomes"] if one["status"] == "pass"}
    assert "/conf/core/geo-metadata" in passed
    assert any(one.startswith("/conf/covering") for one in passed)


def test_longitude_and_latitude_are_rfc_7946(tmp_path):
    content = json.loads(write(tmp_path / "f.geojson", WGS84).read_text())
    collection = geojson_pydantic.FeatureCollection.model_validate(content)
    assert "crs" not in content
    assert len(collection.features) == 6
    expected = geopandas.read_parquet(write(tmp_path / "f.parquet")).set_index("id").to_crs(WGS84).geometry
    for feature in content["features"]:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)
        longitude, latitude = shapely.get_coordinates(polygon).T
        assert ((longitude > 4) & (longitude < 5)).all()  # Rotterdam
        assert ((latitude > 51) & (latitude < 52)).all()
        assert polygon.symmetric_difference(expected[feature["properties"]["id"]]).area < 1e-12


def test_formats_are_known_and_ordered():
    assert check_formats(["fgb", "csv", "fgb"]) == ("csv", "fgb")
    with user_error("unknown_value", key="formats", value="shp"):
        check_formats(["gpkg", "shp"])
    with user_error("missing_value", key="formats"):
        check_formats([])


# --- a prediction


CONTACT, HEIGHT = 0.25, 7.5  # m; what the network predicts everywhere


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network with the heads mask, contact and height."""
    network = random_network()
    head = torch.nn.Conv2d(network.head.in_channels, 3, network.head.kernel_size)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:1], head.bias[:1] = network.head.weight, network.head.bias
        head.bias[1:] = torch.tensor([np.log(CONTACT / (1 - CONTACT)), HEIGHT / 10])
    network.head = head
    heads = {name: {"_target_": f"sn6.targets.{name}.{name.capitalize()}"} for name in ("mask", "contact", "height")}
    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    return write_network(path, network, network={"classes": 3}, heads=heads)


def texture(folder, archive_root):
    """Write a radar tile of the archive twice, next to each other with a common half, the first one with a time."""
    source = next(archive_root.rglob("test_public/*/SAR-Intensity/*.tif"))
    with rasterio.open(source) as tile:
        pixels = np.tile(tile.read(), (1, 5, 5))
    for name, column in (("a", 0), ("b", 64)):
        profile = {"count": 4, "height": 576, "width": 160, "dtype": "float32", "crs": CRS, "nodata": 0}
        grid = from_origin(591550 + column / 2, 5750000, 0.5, 0.5)
        folder.mkdir(exist_ok=True)
        with rasterio.open(folder / f"{name}.tif", "w", **profile, transform=grid) as file:
            file.write(pixels[:, :576, column : column + 160])
            file.update_tags(**({"TIFFTAG_DATETIME": "2019:08:22 07:06:10"} if name == "a" else {}))


@pytest.fixture(scope="module")
def predicted(weights, archive_root, tmp_path_factory):
    """The folder of a prediction of overlapping images with all its defaults, and of probabilities."""
    from sn6.predict import predict

    folder = tmp_path_factory.mktemp("prediction")
    texture(folder / "in", archive_root)
    images = str(folder / "in")
    predict(checkpoint=weights, images=images, out=folder / "out", device="cpu", probability=["mask", "contact"])
    return folder / "out"


def test_overlapping_images_give_merged_layers_with_a_style_by_default(predicted):
    assert {path.name for path in predicted.iterdir()} == {
        *("footprints.gpkg", "footprints.geojson", "footprints.qml"),
        *("merged.gpkg", "merged.geojson", "merged.qml", "prediction.json", "probability"),
    }
    each, merged = (geopandas.read_file(predicted / f"{name}.gpkg") for name in ("footprints", "merged"))
    assert 0 < len(merged) < len(each)
    assert each["id"].is_unique
    assert each["model"].nunique() == 1
    times = each.groupby("image_id")["time"]
    assert times.first()["a"] == pandas.Timestamp(TIME)
    assert times.count()["b"] == 0
    for table in (each, merged):
        assert table["height_m"].to_numpy() == pytest.approx(HEIGHT)


def test_the_style_colours_every_confidence(predicted):
    root = ElementTree.parse(predicted / "footprints.qml").getroot()
    renderer = root.find("renderer-v2")
    assert renderer.get("attr") in geopandas.read_file(predicted / "footprints.gpkg").columns
    limits = [(float(one.get("lower")), float(one.get("upper"))) for one in renderer.iter("range")]
    assert (limits[0][0], limits[-1][1]) == (0, 1)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(limits))
    symbols = {one.get("name") for one in renderer.iter("symbol")}
    assert {one.get("symbol") for one in renderer.iter("range")} == symbols


def test_probabilities_are_cloud_optimized_and_scaled(predicted):
    for name in ("a", "b"):
        path = predicted / f"probability/{name}.tif"
        is_valid, errors, warned = cog_validate(path, strict=True, quiet=True)
        assert (is_valid, errors, warned) == (True, [], [])
        with rasterio.open(path) as raster:
            assert raster.overviews(1) == [2, 4]
            assert raster.count == 2
            values = raster.read(1, masked=True) * raster.scales[0]
            contact = raster.read(2, masked=True) * raster.scales[1]
            assert np.abs(contact - CONTACT).max() < 0.5 / 254 + 1e-6
            assert 0 < values.max() <= 1
            assert raster.crs.to_epsg() == 32631
            small = raster.read(1, out_shape=(288, 80), masked=True) * raster.scales[0]
            mean = values.reshape(288, 2, 80, 2).mean(axis=(1, 3))
            assert np.abs(small - mean).max() < 0.01


def test_the_height_of_a_footprint_is_the_mean_of_its_own_pixels():
    heights = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    valid = np.ones((10, 10), dtype=bool)
    valid[2, 3] = False

    def read(rows, columns):
        return {"roofs": heights[:, rows, columns]}, valid[rows, columns]

    chunk = Footprints(np.array([box(2, 1, 4, 3), box(3, 2, 4, 3), box(9, 8, 13, 12)]), np.full(3, 0.5))
    (with_them,) = with_heights(iter([chunk]), read, "roofs", (10, 10))
    assert with_them.heights[0] == pytest.approx(10 * (12 + 13 + 22) / 3)
    assert np.isnan(with_them.heights[1])
    assert with_them.heights[2] == pytest.approx(10 * (89 + 99) / 2)  # it extends beyond the image


def test_times_are_those_of_names_and_metadata(tmp_path):
    path = tmp_path / "SN6_Test_SAR-Intensity_20190804111224_20190804111453_tile_7.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 4, "width": 4, "dtype": "uint8", "crs": CRS}
    for target, tags, expected in (
        (path, {"TIFFTAG_DATETIME": "2020:01:01 00:00:00"}, "2019-08-04T11:12:24Z"),
        (tmp_path / "a.tif", {"TIFFTAG_DATETIME": "2020:01:02 03:04:05"}, "2020-01-02T03:04:05Z"),
        (tmp_path / "b.tif", {"TIFFTAG_DATETIME": "yesterday"}, None),
        (tmp_path / "c.tif", {}, None),
    ):
        with rasterio.open(target, "w", **profile, transform=from_origin(5e5, 5.7e6, 1, 1)) as file:
            file.update_tags(**tags)
        with rasterio.open(target) as file:
            assert sensing_time(file, str(target)) == expected


def test_what_cannot_be_written_is_refused(sn6_command, weights, predicted, tmp_path):
    common = (f"checkpoint={weights}", f"images={predicted.parent / 'in'}", f"out={tmp_path}/out", "wgs84=true")
    assert_fails(sn6_command("predict", *common, "formats=gpkg"), "conflict", "wgs84")
    assert_fails(sn6_command("predict", *common[:3], "formats=csv", "merge=true"), "conflict", "merge")
    assert_fails(sn6_command("predict", *common, "probability=[mask,roof]"), "unknown_value", "probability", "roof")
    assert not (tmp_path / "out").exists()
    done = sn6_command("predict", *common, "formats=geojson", "merge=false", "device=cpu")
    assert done.status == 0, done.err
    assert geopandas.read_file(tmp_path / "out/footprints.geojson").crs.to_epsg() == 4326
