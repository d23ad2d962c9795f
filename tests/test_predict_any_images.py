"""Predict images of any placement, units and bands: the footprints are where the buildings are on the ground.

Buildings are bright in the first band of the network, which is a logit of what it sees.
"""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from helpers.commands import assert_fails, small_run
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform, transform_bounds

from sn6.checkpoints.weights_file import write_weights
from sn6.data.source import Source
from sn6.datasets.folder import Folder
from sn6.datasets.radar_units import Units
from sn6.formats.challenge_csv import read_proposals
from sn6.prediction.inputs import tile_image
from sn6.prediction.raster_images import ReadOptions, raster_image

ZONE, NEIGHBOUR = "EPSG:32633", "EPSG:32632"
WEST, NORTH = 300_020.0, 5_820_000.0  # at 12.05° east, near the edge of the zone
BUILDINGS = [
    shapely.box(WEST + x, NORTH - y - 16, WEST + x + 12, NORTH - y)
    for x in range(20, 180, 32)
    for y in range(20, 130, 36)
]
GROUND, ROOF = 10.0, 30.0  # dB
OFFSET = -40.0  # dB of the digital number 1
SOURCE = {"bands": [2], "orient": False, "min_area": 20.0}
PRODUCT = {"name": "images", "bands": ["VH", "VV"], "dtype": "uint16", "pixel_size": 0.5, "sensor": "radar"}
PIXEL_DEGREES = (0.5 / 111_320 / np.cos(np.radians(52.5)), 0.5 / 111_320)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network of the band VV of digital numbers with two bands, VH and VV, at 0.5 m."""
    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    product = PRODUCT | {"nodata": 0.0, "units": {"name": "dn", "offset": OFFSET}}
    metadata = {
        "network": {"_target_": "helpers.bright.FirstBand"},
        "source": SOURCE | {"product": product},
        "mean": [20.0],
        "std": [5.0],
        "nodata": "zero",
        "footprints": {"threshold": 0.5, "min_area": 20.0, "simplify": 0.3},
    }
    write_weights(path, {"weight": torch.ones(1)}, metadata)
    return path


@pytest.fixture
def sn6_predict(sn6_command, weights, tmp_path):
    """`python -m sn6.predict` of the network to <tmp_path>/out."""
    common = (f"checkpoint={weights}", "allow=helpers.bright.FirstBand", f"out={tmp_path}/out", "device=cpu")
    return lambda *overrides: sn6_command("predict", *common, "formats=[csv,geojson,parquet]", *overrides)


def scene(crs, grid, size):
    """Return the decibels (h, w) of the ground on a grid in a CRS."""
    columns, rows = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    x, y = grid @ (columns, rows)
    x, y = (np.reshape(one, size) for one in transform(crs, ZONE, x.ravel(), y.ravel()))
    inside = np.zeros(size, dtype=bool)
    for west, south, east, north in (building.bounds for building in BUILDINGS):
        inside |= (x > west) & (x < east) & (y > south) & (y < north)
    return np.where(inside, ROOF, GROUND) + np.random.default_rng(0).uniform(-1, 1, size)


def digital(decibels):
    return np.rint(10 ** ((decibels - OFFSET) / 20)).astype(np.uint16)


def write(path, crs=ZONE, grid=None, size=(320, 400), names=("VH", "VV"), encode=digital, **profile):
    """Write an image of the ground with VH, which shows nothing, and VV."""
    grid = from_origin(WEST, NORTH, 0.5, 0.5) if grid is None else grid
    bands = {"VH": np.full(size, GROUND), "VV": scene(crs, grid, size)}
    pixels = np.stack([encode(bands[name]) for name in names])
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"driver": "GTiff", "height": size[0], "width": size[1], "count": len(names), "dtype": pixels.dtype}
    with rasterio.open(path, "w", **options | {"crs": crs, "transform": grid} | profile) as file:
        file.write(pixels)
        file.descriptions = names
    return path


def footprints(out, name="footprints"):
    """Return the footprints of a finished prediction in the zone of the ground."""
    return geopandas.read_parquet(out / f"{name}.parquet").to_crs(ZONE)


def assert_all_buildings(table, buildings=BUILDINGS, least=0.8):
    """Assert that each building has one footprint, and that there is no other."""
    assert len(table) == len(buildings)
    best = []
    for building in buildings:
        shared = table.intersection(building).area
        best.append((shared / (table.area + building.area - shared)).max())
    assert min(best) > least


def north_west(crs):
    """Return a corner from which images of about 200 m × 160 m show all of the ground."""
    west, _, _, north = transform_bounds(ZONE, crs, WEST, NORTH - 160, WEST + 200, NORTH, densify_pts=21)
    return west, north


PLACES = {
    "as trained": (ZONE, None, (320, 400)),
    "0.8 m": (ZONE, from_origin(WEST, NORTH, 0.8, 0.8), (200, 250)),
    "0.3 m": (ZONE, from_origin(WEST, NORTH, 0.3, 0.3), (534, 668)),
    "degrees": ("EPSG:4326", from_origin(*north_west("EPSG:4326"), *PIXEL_DEGREES), (360, 430)),
    "web mercator": ("EPSG:3857", from_origin(*north_west("EPSG:3857"), 0.8, 0.8), (370, 440)),
    "rotated": (
        ZONE,
        Affine.translation(WEST - 60, NORTH - 60) @ Affine.rotation(25) @ Affine.scale(0.5, -0.5),
        (560, 560),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_footprints_are_on_the_buildings_wherever_the_image_is_from(sn6_predict, tmp_path, place):
    crs, grid, size = PLACES[place]
    path = write(tmp_path / "in/scene.tif", crs, grid, size)
    done = sn6_predict(f"images={path}", "window=256", "probability=true", "pictures=1")
    assert done.status == 0, done.err
    assert (str(path) in done.err) == (place != "as trained")  # the line about the warp
    table = footprints(tmp_path / "out")
    covered = [building for building in BUILDINGS if place != "rotated" or len(table[table.intersects(building)])]
    assert len(covered) >= (15 if place == "rotated" else len(BUILDINGS))
    assert_all_buildings(table, covered, 0.7 if place == "0.8 m" else 0.8)
    assert table["area_m2"].to_numpy() == pytest.approx(table.area.to_numpy(), rel=0.002)
    with rasterio.open(tmp_path / "out/probability/scene.tif") as raster:
        assert raster.res == pytest.approx((0.5, 0.5))
        values = raster.read(1, masked=True)
        x, y = raster.transform @ (np.array([0, raster.width]), np.array([0, raster.height]))
        assert values.count() > 0.3 * values.size
        assert (x[1] - x[0], y[0] - y[1]) == (raster.width * 0.5, raster.height * 0.5)
    assert len(list((tmp_path / "out/pictures").glob("*.png"))) == 1


def test_ground_control_points_place_footprints(sn6_predict, tmp_path):
    plain = write(tmp_path / "plain.tif")
    with rasterio.open(plain) as file:
        pixels = file.read()
    corners = [(row, column) for row in (0, 160, 320) for column in (0, 200, 400)]
    xs, ys = transform(ZONE, "EPSG:4326", *zip(*[(WEST + c / 2, NORTH - r / 2) for r, c in corners], strict=True))
    points = [GroundControlPoint(*corner, x, y) for corner, x, y in zip(corners, xs, ys, strict=True)]
    profile = {"driver": "GTiff", "height": 320, "width": 400, "count": 2, "dtype": "uint16"}
    with rasterio.open(tmp_path / "in.tif", "w", gcps=points, crs="EPSG:4326", **profile) as file:
        file.write(pixels)
    done = sn6_predict(f"images={tmp_path}/in.tif")
    assert done.status == 0, done.err
    assert_all_buildings(footprints(tmp_path / "out"))


@pytest.mark.parametrize(
    ("encode", "overrides"),
    [
        (lambda decibels: decibels.astype(np.float32), ["units=db"]),
        (lambda decibels: (decibels - 3).astype(np.float32), ["units=db", "offset=3"]),
        (lambda decibels: (10 ** (decibels / 10)).astype(np.float32), ["units=power"]),
        (lambda decibels: (10 ** (decibels / 20) * 500).astype(np.uint16), ["units=amplitude", "scale=0.002"]),
        (lambda decibels: digital(decibels + 6), ["offset=-46"]),  # of the units of the checkpoint
    ],
    ids=["decibels", "offset", "power", "amplitude", "another calibration"],
)
def test_units_of_the_images(sn6_predict, tmp_path, encode, overrides):
    path = write(tmp_path / "in.tif", encode=encode)
    done = sn6_predict(f"images={path}", *overrides)
    assert done.status == 0, done.err
    assert str(path) not in done.err
    assert_all_buildings(footprints(tmp_path / "out"))


def test_values_that_are_no_decibels_are_refused(sn6_predict, tmp_path):
    path = write(tmp_path / "in.tif", encode=lambda decibels: digital(decibels) * 10)
    assert_fails(sn6_predict(f"images={path}", "units=db"), "wrong_data", path)
    assert_fails(sn6_predict(f"images={path}", "offset=400"), "wrong_data", path)
    assert not (tmp_path / "out").exists()


def test_impossible_decibels_are_refused_where_the_network_says_nothing_of_values(sn6_command, weights, tmp_path):
    """The normalisation of a recipe has the same numbers for all bands."""
    recipe = tmp_path / "recipe.safetensors"
    metadata = {
        "network": {"_target_": "helpers.bright.FirstBand"},
        "source": SOURCE | {"bands": [1, 2], "product": PRODUCT},
        "mean": [0.0, 0.0],
        "std": [1.0, 1.0],
        "nodata": "zero",
    }
    write_weights(recipe, {"weight": torch.ones(1)}, metadata)
    path = write(tmp_path / "in.tif")
    common = (f"checkpoint={recipe}", "allow=helpers.bright.FirstBand", f"images={path}", "device=cpu")
    assert_fails(sn6_command("predict", *common, f"out={tmp_path}/a"), "wrong_data", path)
    assert sn6_command("predict", *common, f"out={tmp_path}/b", "check_values=false").status == 0


def test_bands_are_found_by_name_and_selected_by_name(sn6_predict, tmp_path):
    write(tmp_path / "in/reversed.tif", names=("VV", "VH"))
    write(tmp_path / "in/alone.tif", names=("VV",))
    write(tmp_path / "in/as_trained.tif")
    done = sn6_predict(f"images={tmp_path}/in")
    assert done.status == 0, done.err
    table = footprints(tmp_path / "out")
    for name in ("reversed", "alone", "as_trained"):
        assert_all_buildings(table[table.image_id == name])
    assert_fails(sn6_predict(f"images={tmp_path}/in", "bands=HH"), "invalid_value", "bands", ["HH"])


def test_nodata_of_the_images(sn6_predict, tmp_path):
    path = write(tmp_path / "in.tif")
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[:, :160] = 7
        file.write(pixels)
    done = sn6_predict(f"images={path}", "nodata=7", "probability=true")
    assert done.status == 0, done.err
    with rasterio.open(tmp_path / "out/probability/in.tif") as raster:
        is_nodata = raster.read(1) == raster.nodata
    assert is_nodata[:160].all()
    assert not is_nodata[160:].any()


def test_images_are_given_as_folders_patterns_and_files(sn6_predict, tmp_path):
    for name in ("a/one.tif", "a/deep/two.TIFF", "a/._one.tif", "b/one.tif", "c/three_VV.tif", "c/three_HH.tif"):
        write(tmp_path / name, size=(64, 64))
    done = sn6_predict(f"images=[{tmp_path}/a,{tmp_path}/b/one.tif,{tmp_path}/c/*_VV.tif]")
    assert done.status == 0, done.err
    assert set(read_proposals(tmp_path / "out/proposals.csv")) == {"a_one", "two", "b_one", "three_VV"}
    assert_fails(sn6_predict(f"images={tmp_path}/c/*_VH.tif"), "not_found", "images", f"{tmp_path}/c/*_VH.tif")


def test_images_of_two_zones_give_one_layer_in_degrees(sn6_predict, tmp_path):
    """The second image shows the eastern half of the ground again, in the neighbouring zone."""
    write_two_zones(tmp_path / "in", ("VH", "VV"))
    done = sn6_predict(f"images={tmp_path}/in", "merge=true", "probability=true")
    assert done.status == 0, done.err
    out = tmp_path / "out"
    for name in ("footprints", "merged"):
        for table in (geopandas.read_parquet(out / f"{name}.parquet"), geopandas.read_file(out / f"{name}.geojson")):
            assert table.crs.to_epsg() == 4326
            moved = table.to_crs(ZONE)
            assert moved["area_m2"].to_numpy() == pytest.approx(moved.area.to_numpy(), rel=0.005)
    each = footprints(out)
    assert_all_buildings(each[each.image_id == "here"])
    assert len(each[each.image_id == "there"]) > 5
    assert_all_buildings(footprints(out, "merged"), least=0.75)
    for name, crs in (("here", ZONE), ("there", NEIGHBOUR)):
        with rasterio.open(out / f"probability/{name}.tif") as raster:
            assert raster.crs.to_string() == crs


@pytest.fixture
def area(tmp_path):
    """A layer in degrees: the west of the ground, up to 1 m east of the third column's centroids, and a far place."""
    polygons = [
        shapely.box(WEST, NORTH - 160, WEST + 91, NORTH),
        shapely.box(WEST + 5e4, NORTH, WEST + 5.1e4, NORTH + 9),
    ]
    path = tmp_path / "area.geojson"
    geopandas.GeoSeries(polygons, crs=ZONE).segmentize(10).to_crs("EPSG:4326").to_file(path)
    return path


def test_an_area_keeps_the_footprints_with_their_centroid_in_it(sn6_predict, area, tmp_path):
    write(tmp_path / "in/scene.tif")
    write(tmp_path / "in/elsewhere.tif", grid=from_origin(WEST + 3000, NORTH, 0.5, 0.5))
    overrides = (f"images={tmp_path}/in", f"aoi={area}", "window=96", "overlap=32", "probability=true")
    assert sn6_predict(*overrides).status == 0
    assert_all_buildings(footprints(tmp_path / "out"), [one for one in BUILDINGS if one.centroid.x < WEST + 91])
    assert set(read_proposals(tmp_path / "out/proposals.csv")) == {"scene"}
    with rasterio.open(tmp_path / "out/probability/scene.tif") as raster:
        predicted = raster.read(1) != raster.nodata
    assert predicted[:, : 2 * 91].all()
    assert not predicted[:, 2 * 91 + 96 :].any()
    assert sn6_predict(*overrides).status == 0  # finished
    assert_fails(sn6_predict(*overrides[:1], *overrides[2:]), "conflict")  # without the area


def test_an_area_changes_no_footprint_in_it(sn6_predict, area, tmp_path):
    path = write(tmp_path / "scene.tif")
    assert sn6_predict(f"images={path}", f"out={tmp_path}/all").status == 1  # out= is given twice
    assert sn6_predict(f"images={path}", "window=96", "overlap=32").status == 0
    every = footprints(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "all")
    assert sn6_predict(f"images={path}", "window=96", "overlap=32", f"aoi={area}").status == 0
    inside = footprints(tmp_path / "out")
    expected = every[every.centroid.x < WEST + 91]
    assert len(inside) == len(expected) > 5
    for one in inside.geometry:
        assert expected.symmetric_difference(one).area.min() < 0.5


def test_areas_that_cannot_be_used_are_an_error(sn6_predict, area, tmp_path):
    images = f"images={write(tmp_path / 'scene.tif', grid=from_origin(WEST + 3000, NORTH, 0.5, 0.5))}"
    assert_fails(sn6_predict(images, f"aoi={area}"), "wrong_data", "aoi", str(area))
    points = tmp_path / "points.gpkg"
    geopandas.GeoSeries([shapely.Point(12, 52)], crs="EPSG:4326").to_file(points)
    assert_fails(sn6_predict(images, f"aoi={points}"), "wrong_data", "aoi", str(points))
    assert_fails(sn6_predict(images, f"aoi={tmp_path}/none.gpkg"), "not_found")
    assert not (tmp_path / "out").exists()


def write_two_zones(folder, names):
    """Write the ground, and its eastern half in the neighbouring zone."""
    (west,), (north,) = transform(ZONE, NEIGHBOUR, [WEST + 100], [NORTH])
    write(folder / "here.tif", names=names)
    write(folder / "there.tif", NEIGHBOUR, from_origin(west, north, 0.5, 0.5), (330, 210), names)


def test_tiles_of_a_folder_are_predicted_as_they_are_read_in_training(tmp_path):
    write_two_zones(tmp_path / "in", ("VH", "VV"))
    area = tmp_path / "area.gpkg"
    geopandas.GeoSeries([shapely.box(WEST, NORTH - 90, WEST + 300, NORTH)], crs=ZONE).to_file(area)
    data_set = Folder(images=str(tmp_path / "in"), units="dn", offset=OFFSET, tile_size=150, area=str(area))
    source = Source(data_set.products["images"], (2, 1, 2), orient=False, min_area=20.0)
    tiles = data_set.tiles("train", "images")
    assert {tile.crs for tile in tiles} == {ZONE, NEIGHBOUR}
    for tile in tiles:
        image = tile_image(data_set, tile, source)
        assert (image.crs, image.corner) == (tile.crs, tile.corner)
        pixels, valid = data_set.read(tile, "images", (2, 1, 2))
        assert valid.shape == (image.height, image.width)
        for rows, columns in ((slice(0, image.height), slice(0, image.width)), (slice(20, 70), slice(5, 60))):
            part, part_valid = image.read(rows, columns)
            np.testing.assert_array_equal(part, pixels[:, rows, columns])
            np.testing.assert_array_equal(part_valid, valid[rows, columns])


@pytest.mark.slow
def test_a_run_on_a_folder_of_two_zones_predicts_its_images(sn6_run, sn6_command, tmp_path):
    """The network learns nothing: it sees the buildings as it is."""
    write_two_zones(tmp_path / "in", ("VV", "VH"))
    geopandas.GeoSeries(BUILDINGS, crs=ZONE).to_crs("EPSG:4326").to_file(tmp_path / "labels.gpkg")
    path = tmp_path / "conf/model/first_band.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("_target_: helpers.bright.FirstBand\nmultiple: 1\n")
    small = [one for one in small_run() if not one.startswith("model")]
    data = [
        f"data.images={tmp_path}/in",
        f"data.labels={tmp_path}/labels.gpkg",
        "data.units=dn",
        f"data.offset={OFFSET}",
    ]
    data += ["data=folder", "data.mean=[20,20]", "data.std=[5,5]", "data.tile_size=110"]
    done = sn6_run("--config-dir", tmp_path / "conf", *small, *data, "model=first_band", "optimizer.lr=1e-9")
    assert done.status == 0, done.err
    run = tmp_path / "outputs/it"
    scored = geopandas.read_file(run / "footprints.geojson")
    assert len(scored) > 0
    assert scored.crs.to_epsg() in (4326, 32632, 32633)
    on_ground = scored.to_crs(ZONE)
    assert on_ground.intersection(shapely.union_all(BUILDINGS)).area.sum() > 0.9 * on_ground.area.sum()
    overrides = (f"images={tmp_path}/in", f"out={tmp_path}/out", "device=cpu", "allow=helpers.bright.FirstBand")
    done = sn6_command("predict", f"checkpoint={run}", *overrides, "formats=[parquet]", "merge=true", "simplify=0.3")
    assert done.status == 0, done.err
    assert_all_buildings(footprints(tmp_path / "out", "merged"), least=0.75)


def test_the_reader_is_that_of_training(tmp_path):
    """A data set of the same files gives the same pixels, warped ones included."""
    crs, grid, size = PLACES["degrees"]
    path = write(tmp_path / "in/scene.tif", crs, grid, size)
    data_set = Folder(images=str(path), units="dn", offset=OFFSET, pixel_size=0.5, tile_size=4096)
    product = data_set.products["images"]
    assert (product.bands, product.units) == (("VH", "VV"), Units("dn", 1.0, OFFSET))
    (tile,) = data_set.tiles("train", "images")
    pixels, valid = data_set.read(tile, "images", (2,))
    image = raster_image(str(path), "scene", Source(product, (2,), orient=False, min_area=20.0), ReadOptions())
    assert image.corner == tile.corner
    read, read_valid = image.read(slice(0, image.height), slice(0, image.width))
    np.testing.assert_array_equal(read_valid, valid)
    np.testing.assert_allclose(read, pixels, atol=0.01)
    part, _ = image.read(slice(101, 203), slice(59, 307))
    np.testing.assert_allclose(part, pixels[:, 101:203, 59:307], atol=0.01)
