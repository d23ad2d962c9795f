"""Read archives in the layout of SpaceNet 6."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.errors import user_error
from helpers.handmade import (
    NORTH,
    OTHER_STRIP,
    SAR_STRIP,
    WEST,
    folder,
    speckle,
    write_geojson,
    write_labels,
    write_orientations,
    write_tif,
    write_tile,
)
from rasterio.shutil import copy
from rasterio.transform import Affine

from sn6.datasets.declaration import Tile
from sn6.datasets.spacenet6 import SpaceNet6, split_folder, tile_path

REAL = Path(__file__).parents[2] / "shared" / "real"
REAL_NAME = "SN6_Train_AOI_11_Rotterdam_PS-RGB_20190822070610_20190822070846_tile_3721.tif"
SQUARE = '"POLYGON ((10 20, 40 20, 40 50, 10 50, 10 20))"'


@pytest.fixture
def root(tmp_path):
    """Write an archive of one SAR tile with one building of 30 × 30 pixels, imaged from the south."""
    image_id = write_tile(tmp_path, "SAR-Intensity", speckle())
    write_labels(tmp_path, f"{image_id},0,{SQUARE},7.5,7.0,1.0\n")
    write_orientations(tmp_path)
    return tmp_path


def first_tile(root, product="SAR-Intensity"):
    archive = SpaceNet6(root)
    return archive, archive.tiles("train", product)[0]


def sar_path(root, number=1):
    return tile_path(root, "train", "SAR-Intensity", f"{SAR_STRIP}_tile_{number}")


def test_index_of_a_tile(root):
    write_tile(root, "PAN", np.ones((1, 64, 64)))
    _, tile = first_tile(root)
    assert tile.image_id == "20190822070610_20190822070846_tile_1"
    assert tile.strip == SAR_STRIP
    assert tile.orientation == 1
    assert tile.bounds == (WEST, NORTH - 32, WEST + 32, NORTH)
    assert set(tile.products) == {"SAR-Intensity", "PAN"}


def test_tiles_without_a_product_are_left_out(root):
    write_tile(root, "PS-RGB", np.ones((3, 64, 64)), number=2)
    archive = SpaceNet6(root)
    assert [tile.image_id[-6:] for tile in archive.tiles("train", "SAR-Intensity")] == ["tile_1"]
    assert [tile.image_id[-6:] for tile in archive.tiles("train", "PS-RGB")] == ["tile_2"]
    with user_error("not_found", split_folder(root, "train"), "RGBNIR"):
        archive.tiles("train", "RGBNIR")


def test_one_tile_is_equal_to_that_of_the_index(root):
    """Its optical image is 3 mm narrower, and the broken file of another tile is not opened."""
    image_id = write_tile(root, "PAN", speckle(1), pixel=0.49999648)
    archive, tile = first_tile(root)
    write_tif(folder(root) / "SAR-Intensity" / f"{SAR_STRIP}_tile_2.tif", speckle(3))
    assert archive.tile("train", image_id) == tile
    assert archive.products_of("train")[image_id] == ("SAR-Intensity", "PAN")
    with user_error("not_found", split_folder(root, "train"), f"{SAR_STRIP}_tile_77"):
        archive.tile("train", f"{SAR_STRIP}_tile_77")


def test_bands_are_read_in_the_given_order_and_nodata_is_where_all_are_zero(root):
    pixels = np.full((3, 64, 64), 9)
    pixels[0], pixels[1], pixels[2] = 1, 2, 3
    pixels[:, :16] = 0
    pixels[0, 20] = 0  # one band of 0 is valid
    write_tile(root, "PS-RGB", pixels, number=5)
    archive = SpaceNet6(root)
    image, valid = archive.read(archive.tiles("train", "PS-RGB")[0], "PS-RGB", [3, 1, 1, 2])
    assert image[:, 40, 40].tolist() == [3, 1, 1, 2]
    assert image.dtype == np.float32
    assert valid[:16].sum() == 0
    assert valid[16:].all()


def test_the_product_of_one_metre_is_repeated_to_the_grid_of_half_a_metre(root):
    pixels = np.arange(4 * 32 * 32).reshape(4, 32, 32) % 2000 + 1
    write_tile(root, "RGBNIR", pixels, pixel=1.0)
    archive, tile = first_tile(root, "RGBNIR")
    image, valid = archive.read(tile, "RGBNIR", [4])
    assert image.shape == (1, 64, 64)
    assert valid.shape == (64, 64)
    assert np.array_equal(image[0, 1::2, ::2], pixels[3])


def test_the_csv_takes_precedence_over_the_geojson(root):
    metres = [[WEST + x / 2, NORTH - y / 2] for x, y in ((0, 0), (8, 0), (8, 8), (0, 8), (0, 0))]
    feature = {"type": "Feature", "properties": {"?": 1}, "geometry": {"type": "Polygon", "coordinates": [metres]}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    first = f"{SAR_STRIP}_tile_1"
    second = write_tile(root, "SAR-Intensity", speckle(), number=2)
    empty = write_tile(root, "SAR-Intensity", speckle(), number=3)
    unknown = write_tile(root, "SAR-Intensity", speckle(), number=4)
    for image_id in (first, second):
        write_geojson(root, image_id, text)
    write_geojson(root, empty, "")
    archive = SpaceNet6(root)
    labels = {t.image_id: archive.labels(t) for t in archive.tiles("train", "SAR-Intensity")}
    assert [polygon.area for polygon in labels[first].polygons] == [900]
    assert labels[first].heights.tolist() == [7.5]
    assert [polygon.area for polygon in labels[second].polygons] == pytest.approx([64])
    assert labels[second].polygons[0].bounds == pytest.approx((0, 0, 8, 8))
    assert len(labels[empty].polygons) == 0
    assert labels[unknown] is None


def test_a_root_that_is_not_an_archive(tmp_path):
    with user_error("not_found", tmp_path):
        SpaceNet6(tmp_path)


@pytest.mark.parametrize("size", [10, 3000])
def test_a_truncated_geotiff(root, size):
    path = sar_path(root)
    path.write_bytes(path.read_bytes()[:size])

    def read():
        archive, tile = first_tile(root)
        archive.read(tile, "SAR-Intensity", [1, 2, 3, 4])

    with user_error("unreadable", path):
        read()


def test_a_wrong_number_of_bands_and_another_crs(root):
    path = sar_path(root)
    write_tif(path, speckle(bands=3))
    with user_error("wrong_data", path, 3):
        first_tile(root)
    write_tif(path, speckle(), crs="EPSG:28992")
    with user_error("wrong_data", path, "EPSG:28992"):
        first_tile(root)


@pytest.mark.parametrize(
    ("product", "pixel", "place"),
    [
        ("SAR-Intensity", 1.0, {}),
        ("SAR-Intensity", 0.5005, {}),  # the far edge of 900 pixels would be a pixel off
        ("RGBNIR", 0.5, {}),
        ("PS-RGB", 0.5, {"shear": 0.1}),
        ("PS-RGB", 0.5, {"flip": True}),
    ],
)
def test_another_pixel_size_and_a_tile_that_is_not_north_up(root, product, pixel, place):
    image_id = write_tile(root, product, np.ones((4 if product != "PS-RGB" else 3, 32, 32)), number=7, pixel=pixel)
    path = folder(root) / product / f"SN6_Train_AOI_11_Rotterdam_{product}_{image_id}.tif"
    if place:
        with rasterio.open(path, "r+") as file:
            north_up = file.transform
            turned = Affine.rotation(10) if "shear" in place else Affine.translation(0, 32) * Affine.scale(1, -1)
            file.transform = north_up * turned
    archive = SpaceNet6(root)
    with user_error("wrong_data", path):
        archive.tiles("train", product)
    with user_error("wrong_data", path):
        archive.read(Tile(image_id, "train", SAR_STRIP, 1, (0, 0, 0, 0), (product,)), product, [1])


@pytest.mark.parametrize("dtype", ["float64", "int16", "complex64"])
def test_another_data_type(root, dtype):
    write_tif(sar_path(root), speckle().astype(dtype))
    with user_error("wrong_data", sar_path(root), dtype):
        first_tile(root)


def test_a_product_that_is_not_where_the_radar_is(root):
    """By more than a pixel."""
    image_id = write_tile(root, "PAN", np.ones((1, 64, 64)), west=WEST + 0.3)
    assert [tile.image_id for tile in SpaceNet6(root).tiles("train", "PAN")] == [image_id]
    path = folder(root) / "PAN" / f"SN6_Train_AOI_11_Rotterdam_PAN_{image_id}.tif"
    write_tile(root, "PAN", np.ones((1, 64, 64)), north=NORTH - 20)
    with user_error("wrong_data", path, (0.0, -20.0)):
        SpaceNet6(root).tiles("train", "PAN")
    SpaceNet6(root).tiles("train", "SAR-Intensity")  # which needs no other product


def test_a_tile_is_read_as_a_geotiff_only(root):
    path = sar_path(root)
    other = path.with_suffix(".other")
    path.rename(other)
    copy(other, path, driver="VRT")
    with user_error("unreadable", path):
        first_tile(root)


def test_a_malformed_table_of_look_directions(root):
    path = write_orientations(root, f"{OTHER_STRIP} 0\n{SAR_STRIP} north\n")
    with user_error("unreadable", path, f"{SAR_STRIP} north") as error:
        first_tile(root)
    assert "line 2" in str(error.value)


def test_malformed_wkt_and_geojson(root):
    path = write_labels(root, f'{SAR_STRIP}_tile_1,0,"POLYGON ((1 2, 3 4",1,1,1\n')
    archive, tile = first_tile(root)
    with user_error("invalid_value", path):
        archive.labels(tile)
    path.unlink()
    path = write_geojson(root, tile.image_id, '{"type": "FeatureCollection", "features": [')
    archive, tile = first_tile(root)
    with user_error("unreadable", path):
        archive.labels(tile)


@pytest.mark.skipif(not REAL.exists(), reason="the published tile is missing")
def test_the_published_optical_tile(tmp_path):
    """Bands, bounds and fraction of nodata are those published for tile 3721."""
    target = folder(tmp_path) / "PS-RGB" / REAL_NAME
    target.parent.mkdir(parents=True)
    target.symlink_to(REAL / REAL_NAME)
    archive, tile = first_tile(tmp_path, "PS-RGB")
    assert tile.image_id == "20190822070610_20190822070846_tile_3721"
    assert tile.bounds[0] == pytest.approx(592736.977, abs=1e-3)
    assert tile.bounds[3] == pytest.approx(5747555.522, abs=1e-3)
    image, valid = archive.read(tile, "PS-RGB", [3, 1, 1, 2])
    assert image.shape == (4, 900, 900)
    assert 1 - valid.mean() == pytest.approx(0.37, abs=0.01)
    red, green, blue = archive.read(tile, "PS-RGB", [1, 2, 3])[0]
    for channel, expected in zip(image, (blue, red, red, green), strict=True):
        assert np.array_equal(channel, expected)
    canal = image[:, 150:200, 650:670].mean(axis=(1, 2))  # dark water in the picture of the tile
    assert canal.max() < image[:, valid].mean()
