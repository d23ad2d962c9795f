"""Where an image is on the ground: CRSs whose unit is no metre, images without an affine transform, UTM zones."""

import math

import numpy as np
import pytest
import rasterio
from helpers.errors import user_error
from helpers.handmade import speckle, write_tif
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.warp import transform

from sn6.data.source import Source
from sn6.datasets.georeference import metres_per_unit, place_of, utm_zone
from sn6.datasets.spacenet6 import PRODUCTS
from sn6.prediction.raster_images import ReadOptions, raster_image, raster_images

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=0.0)
PSEUDO_MERCATOR = CRS.from_epsg(3857).to_wkt().replace('AUTHORITY["EPSG","3857"]', "").replace("Pseudo", "Other")


def at(crs, longitude, latitude):
    """Return a point in a CRS."""
    (x,), (y,) = transform(CRS.from_epsg(4326), CRS.from_user_input(crs), [longitude], [latitude])
    return x, y


def opened(path):
    """Open a raster for the radar network."""
    return raster_image(str(path), path.stem, SAR, ReadOptions())


def open_at(path, crs, longitude, latitude, pixel=0.5):
    west, north = at(crs, longitude, latitude)
    return opened(write_tif(path, speckle(), west, north, pixel, crs))


def write_plain(path, **placed):
    """Write an image without an affine transform."""
    profile = {"driver": "GTiff", "count": 4, "height": 64, "width": 64, "dtype": "float32"}
    with rasterio.open(path, "w", **profile, **placed) as file:
        file.write(speckle())
    return path


@pytest.mark.parametrize(
    ("longitude", "latitude", "code"),
    [
        (4.4, 51.9, 32631),
        (-0.1, 51.5, 32630),
        (0.0, 51.5, 32631),
        (6.0, 0.0, 32632),
        (151.2, -33.9, 32756),
        (-70.7, -33.4, 32719),
        (179.9, 65.0, 32660),
        (-180.0, 65.0, 32601),
        (180.0, -17.0, 32701),
        (200.0, 52.0, 32604),  # degrees from 0 to 360
        (0.0, 88.0, 32661),
        (0.0, -88.0, 32761),
    ],
)
def test_utm_zones(longitude, latitude, code):
    assert utm_zone((longitude, latitude)).to_epsg() == code


@pytest.mark.parametrize("latitude", [0, 35, -52, 70])
def test_the_unit_of_web_mercator_is_the_cosine_of_the_latitude(latitude):
    x, y = at("EPSG:3857", 18.4, latitude)
    assert metres_per_unit(CRS.from_epsg(3857), x, y) == pytest.approx([math.cos(math.radians(latitude))] * 2, rel=0.01)


def test_the_unit_of_a_plane_in_us_survey_feet():
    assert metres_per_unit(CRS.from_epsg(2263), 980000, 200000) == pytest.approx([1200 / 3937] * 2, rel=0.001)


def test_a_point_out_of_range_has_no_place():
    for crs, x, y in ((32631, 5e5, 1e8), (32631, 1e30, 0), (32631, math.inf, 0), (3857, 1e9, 1e9), (4326, 5, 95)):
        assert place_of(CRS.from_epsg(crs), x, y) is None
    assert place_of(CRS.from_epsg(32631), 5e5, 0) == pytest.approx((3, 0))


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude"),
    [("EPSG:32631", 4.4, 51.9), ("EPSG:25832", 4.4, 51.9), ("EPSG:28992", 4.4, 51.9), ("EPSG:27700", -1, 52)],
)
def test_a_crs_in_metres_is_used(tmp_path, crs, longitude, latitude):
    image = open_at(tmp_path / "a.tif", crs, longitude, latitude)
    assert (image.crs, image.pixel, image.pixel_metres) == (crs, 0.5, 0.5)


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude", "zone"),
    [
        ("EPSG:3857", 12.5, 41.9, "EPSG:32633"),
        ("EPSG:3857", 151.2, -33.9, "EPSG:32756"),
        ("EPSG:3857", -179.99, -17, "EPSG:32701"),
        ("EPSG:3857", 30, 15, "EPSG:32636"),
        (PSEUDO_MERCATOR, 12.5, 41.9, "EPSG:32633"),
        ("EPSG:900913", 12.5, 41.9, "EPSG:32633"),
        ("ESRI:102100", 12.5, 41.9, "EPSG:32633"),
        ("EPSG:3395", 12.5, 41.9, "EPSG:32633"),
        ("EPSG:4087", 12.5, 41.9, "EPSG:32633"),  # stretched along one axis
        ("EPSG:6933", 12.5, 41.9, "EPSG:32633"),  # true areas of wrong shape
        ("EPSG:2263", -74, 40.7, "EPSG:32618"),  # feet of 0.3 m
        ("EPSG:4258", 12.5, 41.9, "EPSG:32633"),  # degrees
    ],
)
def test_an_image_in_another_crs_is_warped_to_the_zone_of_its_place(tmp_path, crs, longitude, latitude, zone):
    pixel = {"EPSG:4258": 5e-6, "EPSG:2263": 1.5}.get(crs, 0.5)
    image = open_at(tmp_path / "a.tif", crs, longitude, latitude, pixel)
    assert (image.crs, image.pixel, image.pixel_metres) == (zone, 0.5, 0.5)
    assert 0.25 < image.warped_from < 1
    west, north = at(zone, longitude, latitude)  # of the upper left corner of the file
    assert np.abs(np.subtract(image.corner, (west, north))).max() < 5
    values, valid = image.read(slice(0, image.height), slice(0, image.width))
    square = (64 * image.warped_from / 0.5) ** 2
    assert valid.sum() == pytest.approx(square, rel=0.15)
    assert values[:, valid].mean() == pytest.approx(27.5, abs=1)


@pytest.mark.parametrize(("pixel", "is_used"), [(0.26, True), (0.24, False), (0.99, True), (1.05, False)])
def test_other_pixel_sizes_are_resampled_up_to_a_factor_of_two(tmp_path, pixel, is_used):
    if is_used:
        image = open_at(tmp_path / "a.tif", "EPSG:32631", 4.4, 51.9, pixel)
        assert (image.pixel, image.warped_from) == (0.5, pixel)
        assert image.height == pytest.approx(64 * pixel / 0.5, abs=2)
        return
    with user_error("wrong_data", key=tmp_path / "a.tif", value=pixel):
        open_at(tmp_path / "a.tif", "EPSG:32631", 4.4, 51.9, pixel)


def test_an_image_whose_centre_is_no_place_is_refused(tmp_path):
    path = write_tif(tmp_path / "a.tif", speckle(), west=5e5, north=1e8)
    with user_error("wrong_data", key=path):
        opened(path)


def test_control_points_in_a_projected_crs_place_an_image(tmp_path):
    west, north = at("EPSG:32735", 27, -26)
    points = [GroundControlPoint(y, x, west + x / 2, north - y / 2) for x in (0, 64) for y in (0, 64)]
    image = opened(write_plain(tmp_path / "points.tif", gcps=points, crs=CRS.from_epsg(32735)))
    assert (image.crs, image.pixel) == ("EPSG:32735", 0.5)
    assert image.corner == pytest.approx((west, north), abs=1)
    _, valid = image.read(slice(0, image.height), slice(0, image.width))
    assert valid.sum() == pytest.approx(64 * 64, rel=0.05)


@pytest.mark.parametrize("east", [-179.99933, 180.00067])
def test_control_points_on_both_sides_of_the_antimeridian_are_refused(tmp_path, east):
    """GDAL would place them, and then read a corner of the image only."""
    corners = [(0, 0, 179.99999, 65.0), (0, 64, east, 65.0), (64, 0, 179.99999, 64.9997), (64, 64, east, 64.9997)]
    points = [GroundControlPoint(*corner) for corner in corners]
    path = write_plain(tmp_path / "points.tif", gcps=points, crs=CRS.from_epsg(4326))
    with user_error("wrong_data", key=path):
        opened(path)


@pytest.mark.parametrize("degrees", [10, 45, 90, 200])
def test_a_rotated_image_has_its_own_pixel_size(tmp_path, degrees):
    path = write_tif(tmp_path / "a.tif", speckle(), *at("EPSG:32631", 4.4, 51.9))
    with rasterio.open(path, "r+") as file:
        file.transform = file.transform @ rasterio.Affine.rotation(degrees)
    image = opened(path)
    assert image.warped_from == pytest.approx(0.5)
    _, valid = image.read(slice(0, image.height), slice(0, image.width))
    assert valid.sum() == pytest.approx(64 * 64, rel=0.05)


def test_rational_polynomials_and_geolocation_arrays_are_refused(tmp_path):
    identity = {"line_num_coeff": [0.0, 0, 1] + [0.0] * 17, "samp_num_coeff": [0.0, 1] + [0.0] * 18}
    denominators = {"line_den_coeff": [1.0] + [0.0] * 19, "samp_den_coeff": [1.0] + [0.0] * 19}
    places = {"lat_off": -33.9, "lat_scale": 0.1, "long_off": 18.5, "long_scale": 0.1}
    offsets = {"line_off": 32, "line_scale": 32, "samp_off": 32, "samp_scale": 32, "height_off": 0, "height_scale": 500}
    polynomials = RPC(**identity, **denominators, **places, **offsets, err_bias=None, err_rand=None)
    path = write_plain(tmp_path / "rpc.tif", rpcs=polynomials)
    with user_error("wrong_data", key=path) as caught:
        opened(path)
    assert "gdalwarp -rpc -t_srs EPSG:32734" in str(caught.value)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_plain(tmp_path / "array.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, "r+") as file:
        file.update_tags(ns="GEOLOCATION", X_DATASET="x.tif", Y_DATASET="y.tif")
    with user_error("wrong_data", key=path, value="a geolocation array"):
        opened(path)


def test_hidden_files_are_left_out_of_a_folder(tmp_path):
    write_tif(tmp_path / "b.TIFF", speckle())
    write_tif(tmp_path / "a.tif", speckle())
    for name in ("._a.tif", ".DS_Store", ".hidden.tif"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    assert [image.image_id for image in raster_images([str(tmp_path)], SAR, ReadOptions())] == ["a", "b"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only/._a.tif").write_bytes(b"\0")
    with user_error("not_found", key="images"):
        raster_images([str(tmp_path / "only")], SAR, ReadOptions())


def test_areas_are_those_on_the_ground(tmp_path):
    """A square of 64 pixels in a Dutch CRS has the area that its corners have in UTM."""
    image = open_at(tmp_path / "a.tif", "EPSG:28992", 6.5, 53)
    (west, north), side = image.corner, 64 * image.pixel
    xs, ys = [west, west + side, west + side, west], [north, north, north - side, north - side]
    x, y = map(np.array, transform(CRS.from_epsg(28992), CRS.from_epsg(32632), xs, ys))
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert (64 * image.pixel_metres) ** 2 == pytest.approx(area, rel=0.005)
