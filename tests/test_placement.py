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
from sn6.prediction.inputs import GeoTIFFOptions, geotiff_image, geotiff_images

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=0.0)
PSEUDO_MERCATOR = CRS.from_epsg(3857).to_wkt().replace('AUTHORITY["EPSG","3857"]', "").replace("Pseudo", "Other")


def at(crs, longitude, latitude):
    """Return a point in a CRS."""
    (x,), (y,) = transform(CRS.from_epsg(4326), CRS.from_user_input(crs), [longitude], [latitude])
    return x, y


def open_at(path, crs, longitude, latitude, pixel=0.5):
    west, north = at(crs, longitude, latitude)
    return geotiff_image(write_tif(path, speckle(), west, north, pixel, crs), SAR, GeoTIFFOptions())


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
        ("EPSG:2263", -74, 40.7, "EPSG:32618"),  # feet
        ("EPSG:4258", 12.5, 41.9, "EPSG:32633"),  # degrees
    ],
)
def test_another_crs_is_refused_with_the_zone_of_the_image(tmp_path, crs, longitude, latitude, zone):
    pixel = 5e-6 if crs == "EPSG:4258" else 0.5
    with user_error("wrong_data", key=tmp_path / "a.tif") as caught:
        open_at(tmp_path / "a.tif", crs, longitude, latitude, pixel)
    assert f"-t_srs {zone} -tr 0.5 0.5" in str(caught.value)


def test_an_image_whose_centre_is_no_place_is_refused(tmp_path):
    path = write_tif(tmp_path / "a.tif", speckle(), west=5e5, north=1e8)
    with user_error("wrong_data", key=path):
        geotiff_image(path, SAR, GeoTIFFOptions())


def test_ground_control_points_name_the_zone_of_their_middle(tmp_path):
    """Corners on both sides of the antimeridian, the middle at -179.95 degrees."""
    corners = [(0, 0, 179.95, 65.1), (0, 64, -179.85, 65.1), (64, 0, 179.95, 65.0), (64, 64, -179.85, 65.0)]
    points = [GroundControlPoint(*corner) for corner in corners]
    path = write_plain(tmp_path / "points.tif", gcps=points, crs=CRS.from_epsg(4326))
    with user_error("wrong_data", key=path, value="ground control points") as caught:
        geotiff_image(path, SAR, GeoTIFFOptions())
    assert "EPSG:32601" in str(caught.value)


def test_control_points_in_a_projected_crs(tmp_path):
    west, north = at("EPSG:32735", 27, -26)
    points = [GroundControlPoint(y, x, west + x / 2, north - y / 2) for x in (0, 64) for y in (0, 64)]
    path = write_plain(tmp_path / "points.tif", gcps=points, crs=CRS.from_epsg(32735))
    with user_error("wrong_data", key=path) as caught:
        geotiff_image(path, SAR, GeoTIFFOptions())
    assert "EPSG:32735" in str(caught.value)


def test_rational_polynomials_and_geolocation_arrays_are_refused(tmp_path):
    identity = {"line_num_coeff": [0.0, 0, 1] + [0.0] * 17, "samp_num_coeff": [0.0, 1] + [0.0] * 18}
    denominators = {"line_den_coeff": [1.0] + [0.0] * 19, "samp_den_coeff": [1.0] + [0.0] * 19}
    places = {"lat_off": -33.9, "lat_scale": 0.1, "long_off": 18.5, "long_scale": 0.1}
    offsets = {"line_off": 32, "line_scale": 32, "samp_off": 32, "samp_scale": 32, "height_off": 0, "height_scale": 500}
    polynomials = RPC(**identity, **denominators, **places, **offsets, err_bias=None, err_rand=None)
    path = write_plain(tmp_path / "rpc.tif", rpcs=polynomials)
    with user_error("wrong_data", key=path) as caught:
        geotiff_image(path, SAR, GeoTIFFOptions())
    assert "gdalwarp -rpc -t_srs EPSG:32734" in str(caught.value)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_plain(tmp_path / "array.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, "r+") as file:
        file.update_tags(ns="GEOLOCATION", X_DATASET="x.tif", Y_DATASET="y.tif")
    with user_error("wrong_data", key=path, value="a geolocation array"):
        geotiff_image(path, SAR, GeoTIFFOptions())


def test_hidden_files_are_left_out_of_a_folder(tmp_path):
    write_tif(tmp_path / "b.TIFF", speckle())
    write_tif(tmp_path / "a.tif", speckle())
    for name in ("._a.tif", ".DS_Store", ".hidden.tif"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    assert [image.image_id for image in geotiff_images(tmp_path, SAR, GeoTIFFOptions())] == ["a", "b"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only/._a.tif").write_bytes(b"\0")
    with user_error("not_found", key="images"):
        geotiff_images(tmp_path / "only", SAR, GeoTIFFOptions())


def test_areas_are_those_on_the_ground(tmp_path):
    """A square of 64 pixels in a Dutch CRS has the area that its corners have in UTM."""
    image = open_at(tmp_path / "a.tif", "EPSG:28992", 6.5, 53)
    (west, north), side = image.corner, 64 * image.pixel
    xs, ys = [west, west + side, west + side, west], [north, north, north - side, north - side]
    x, y = map(np.array, transform(CRS.from_epsg(28992), CRS.from_epsg(32632), xs, ys))
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert (64 * image.pixel_metres) ** 2 == pytest.approx(area, rel=0.005)
