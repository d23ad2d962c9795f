"""Read images of any placement on a metric grid: each pixel has the value of its place on the ground."""

import numpy as np
import pytest
import rasterio
from helpers.errors import user_error
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from sn6.datasets.placed_image import PlacedImage, place_image
from sn6.datasets.radar_units import Units

ZONE = "EPSG:25833"  # metres, around Berlin
WEST, NORTH = 390_000.0, 5_820_000.0


def value_at(easting, northing):
    """Return what the ground looks like: waves of 250 m and more, from 10 to 50."""
    return 30 + 10 * np.sin((easting - WEST) / 40) + 10 * np.cos((northing - NORTH) / 60)


def write(path, crs, grid, size=(200, 200), bands=1, **profile):
    """Write an image of the ground whose pixels are placed by an affine transform."""
    height, width = size
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = grid @ (columns, rows)
    easting, northing = (np.reshape(one, size) for one in transform(crs, ZONE, x.ravel(), y.ravel()))
    values = np.stack([value_at(easting, northing) + band for band in range(bands)]).astype(np.float32)
    options = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": "float32"} | profile
    with rasterio.open(path, "w", crs=crs, transform=grid, **options) as file:
        file.write(values)
    return values


def read(path, pixel_size=None, nodata=None, units=None, bands=(1,)):
    grid, warped = place_image(str(path), pixel_size)
    image = PlacedImage(str(path), grid, bands, warped, units or Units(), nodata)
    return grid, *image.read(slice(0, grid.height), slice(0, grid.width), range(1, len(bands) + 1))


def expected(grid):
    zone = grid.crs
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (columns, rows)
    easting, northing = transform(zone, ZONE, x.ravel(), y.ravel())
    return value_at(np.reshape(easting, columns.shape), np.reshape(northing, columns.shape))


def inner(valid):
    """Leave out the edge, where the warper extrapolates by up to a pixel."""
    eroded = valid.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            eroded &= np.roll(valid, shift, axis)
    return eroded


def test_a_metric_grid_is_read_as_it_is(tmp_path):
    values = write(tmp_path / "a.tif", ZONE, from_origin(WEST, NORTH, 0.35, 0.35))
    grid, read_values, valid = read(tmp_path / "a.tif")
    assert grid == (ZONE, WEST, NORTH, 0.35, 200, 200)
    np.testing.assert_array_equal(read_values, values)
    assert valid.all()


DEGREES = from_origin(13.38, 52.52, 1.5e-5, 0.9e-5)  # about 1 m


@pytest.mark.parametrize(
    ("crs", "grid", "pixel_size"),
    [
        ("EPSG:4326", DEGREES, None),
        ("EPSG:4326", DEGREES, 2.5),
        ("EPSG:3857", from_origin(1_490_000, 6_892_000, 1.6, 1.6), None),
        (ZONE, from_origin(WEST, NORTH, 1.0, 1.0), 0.5),
        (ZONE, from_origin(WEST, NORTH, 1.0, 1.0), 4.0),
        (ZONE, from_origin(WEST, NORTH, 1.0, 2.0), None),
        (ZONE, Affine.translation(WEST, NORTH) @ Affine.rotation(30) @ Affine.scale(1, -1), None),
        (ZONE, Affine(1, 0, WEST, 0, 1, NORTH), None),  # south-up
    ],
    ids=["degrees", "degrees at 2.5 m", "web mercator", "finer", "coarser", "not square", "rotated", "south-up"],
)
def test_any_other_image_is_warped_to_its_place(tmp_path, crs, grid, pixel_size):
    write(tmp_path / "a.tif", crs, grid)
    placed, values, valid = read(tmp_path / "a.tif", pixel_size)
    assert placed.pixel_size == pytest.approx(pixel_size or placed.pixel_size)
    assert 0.5 <= placed.pixel_size < 5
    checked = inner(valid)
    assert checked.sum() > 500
    assert np.abs(values[0] - expected(placed))[checked].max() < 0.6  # of 40; the ground changes by 0.3 in a metre
    assert (values[0][~valid] == 0).all()


@pytest.mark.parametrize("pixel_size", [None, 2.0, 0.5])
def test_ground_control_points_place_an_image(tmp_path, pixel_size):
    write(tmp_path / "a.tif", ZONE, from_origin(WEST, NORTH, 1, 1))
    points = [
        GroundControlPoint(
            row, column, *(one[0] for one in transform(ZONE, "EPSG:4326", [WEST + column], [NORTH - row]))
        )
        for row in (0, 100, 200)
        for column in (0, 100, 200)
    ]
    with rasterio.open(tmp_path / "a.tif") as file:
        pixels = file.read()
    options = {"driver": "GTiff", "height": 200, "width": 200, "count": 1, "dtype": "float32"}
    with rasterio.open(tmp_path / "b.tif", "w", **options) as file:
        file.write(pixels)
        file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    grid, values, valid = read(tmp_path / "b.tif", pixel_size)
    assert grid.crs == "EPSG:32633"
    assert grid.pixel_size == pytest.approx(pixel_size or 1, rel=0.02)
    checked = inner(valid)
    assert checked.sum() * grid.pixel_size**2 > 30_000
    assert np.abs(values[0] - expected(grid))[checked].max() < 0.6


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "rule"])
def test_nodata_is_not_mixed_into_its_neighbours(tmp_path, declared):
    path = tmp_path / "a.tif"
    values = write(path, "EPSG:4326", DEGREES, bands=2, **({"nodata": -9999.0} if declared else {}))
    with rasterio.open(path, "r+") as file:
        values[:, 80:120, 80:120] = -9999 if declared else 0
        values[0, 20, 20] = 0  # of one band only: a value
        file.write(values)
    grid, read_values, valid = read(path, nodata=None if declared else 0.0, bands=(1, 2))
    difference = np.abs(read_values[1] - 1 - expected(grid))
    assert difference[inner(valid)].max() < 0.6
    assert 1200 < (~valid)[20:-20, 20:-20].sum() < 2000


def test_nodata_that_the_file_declares_in_one_band_is_nodata(tmp_path):
    """As where the image is not warped: the band would have no value there."""
    path = tmp_path / "a.tif"
    values = write(path, "EPSG:4326", DEGREES, bands=2, nodata=-9999.0)
    with rasterio.open(path, "r+") as file:
        values[1, 80:120, 80:120] = -9999
        file.write(values)
    grid, read_values, valid = read(path, nodata=0.0, bands=(1, 2))
    assert 1200 < (~valid)[20:-20, 20:-20].sum() < 2000
    assert np.abs(read_values[1] - 1 - expected(grid))[inner(valid)].max() < 0.6


def test_a_rectangle_equals_that_part_of_the_whole(tmp_path):
    write(tmp_path / "a.tif", "EPSG:4326", DEGREES)
    grid, warped = place_image(str(tmp_path / "a.tif"), None)
    image = PlacedImage(str(tmp_path / "a.tif"), grid, (1,), warped, Units(), None)
    whole, valid = image.read(slice(0, grid.height), slice(0, grid.width), (1,))
    part, part_valid = image.read(slice(30, 70), slice(50, 90), (1,))
    np.testing.assert_allclose(part, whole[:, 30:70, 50:90], atol=1e-4)
    np.testing.assert_array_equal(part_valid, valid[30:70, 50:90])


def test_an_image_without_a_place_is_an_error(tmp_path):
    options = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "float32"}
    path = tmp_path / "a.tif"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, "w", **options) as file:
        file.write(np.ones((1, 8, 8), np.float32))
    with user_error("wrong_data", str(path)):
        place_image(str(path), None)


@pytest.mark.parametrize(
    ("units", "stored", "decibels"),
    [
        (Units("power"), [1.0, 0.001, 100.0], [0, -30, 20]),
        (Units("amplitude", scale=0.1), [10.0, 1.0, 100.0], [0, -20, 20]),
        (Units("dn", offset=-83.0), [1000.0, 1.0, 100.0], [-23, -83, -43]),
        (Units("db", scale=0.5, offset=3.0), [-20.0, 0.0, 8.0], [-7, 3, 7]),
    ],
    ids=lambda value: value.name if isinstance(value, Units) else None,
)
def test_units_become_decibels(units, stored, decibels):
    values, valid = units.to_decibels(np.array([[stored]], np.float32), np.ones((1, 3), bool))
    np.testing.assert_allclose(values[0, 0], decibels, atol=1e-4)
    assert valid.all()


def test_power_of_zero_and_below_is_nodata():
    values, valid = Units("power").to_decibels(np.array([[[0.0, -1.0, 1.0]]], np.float32), np.ones((1, 3), bool))
    np.testing.assert_array_equal(valid, [[False, False, True]])
    np.testing.assert_array_equal(values, [[[0, 0, 0]]])
