"""Read rectangles of images, equal to what the archive reads of whole tiles."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from helpers.errors import user_error
from helpers.handmade import speckle, write_tif

from sn6.data.source import Source
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6
from sn6.prediction.inputs import archive_images, find_images
from sn6.prediction.raster_images import ReadOptions, image_id_of, placement_notes, raster_image

SOURCES = [
    Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=0.0),
    Source(PRODUCTS["PS-RGB"], (3, 1, 1, 2), orient=True, min_area=0.0),
    Source(PRODUCTS["RGBNIR"], (4, 1), orient=True, min_area=0.0),  # pixels of 1 m, on a grid of 0.5 m
    Source(PRODUCTS["PAN"], (1,), orient=True, min_area=0.0),
]
SAR = SOURCES[0]


def opened(path, **options):
    """Open a raster for the radar network."""
    return raster_image(str(path), image_id_of(path), SAR, ReadOptions(**options))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.product.name)
def test_a_rectangle_equals_that_part_of_the_tile_in_the_frame_of_training(archive_root, source):
    archive = SpaceNet6(archive_root)
    images = {image.image_id: image for image in archive_images(SpaceNet6(archive_root), "train", source, None)}
    rotated = 0
    for tile in archive.tiles("train", source.product.name)[::3]:
        pixels, valid = archive.read(tile, source.product.name, source.bands)
        if source.product.name == "SAR-Intensity" and tile.orientation == 1:
            pixels, valid, rotated = pixels[:, ::-1, ::-1], valid[::-1, ::-1], rotated + 1
        image = images[tile.image_id]
        assert (image.height, image.width) == valid.shape
        assert image.corner == (tile.bounds[0], tile.bounds[3])
        for rows, columns in (
            (slice(0, 128), slice(0, 128)),
            (slice(31, 64), slice(5, 128)),
            (slice(3, 4), slice(2, 9)),
        ):
            part, part_valid = image.read(rows, columns)
            assert (part == pixels[:, rows, columns]).all()
            assert (part_valid == valid[rows, columns]).all()
    assert (rotated > 0) == (source.product.name == "SAR-Intensity")


def test_nan_and_the_nodata_value_of_the_file_are_nodata(tmp_path):
    pixels = speckle()
    pixels[:, 3, 5] = pixels[0, 8, 9] = np.nan
    pixels[:, 20:30, 10:20] = -9999
    pixels[:, 40, 41] = 0
    path = write_tif(tmp_path / "area.tif", pixels)
    with rasterio.open(path, "r+") as file:
        file.nodata = -9999
    read, valid = opened(path).read(slice(0, 64), slice(0, 64))
    expected = np.ones((64, 64), dtype=bool)
    expected[3, 5] = expected[8, 9] = expected[40, 41] = False
    expected[20:30, 10:20] = False
    assert (valid == expected).all()
    assert np.isfinite(read).all()
    assert (read[:, expected] == pixels[:, expected]).all()


def test_a_rotated_image_equals_the_image_rotated(tmp_path):
    image = opened(write_tif(tmp_path / "area.tif", speckle(size=50)[:, :40]), rotate=True)
    unrotated, _ = replace(image, rotated=False).read(slice(0, 40), slice(0, 50))
    part, _ = image.read(slice(4, 9), slice(10, 30))
    assert (part == np.rot90(unrotated, 2, axes=(1, 2))[:, 4:9, 10:30]).all()


def test_a_challenge_file_keeps_its_image_id(tmp_path):
    name = "SN6_Test_Public_AOI_11_Rotterdam_SAR-Intensity_20190804111224_20190804111453_tile_8697.tif"
    image = opened(write_tif(tmp_path / name, speckle()))
    assert image.image_id == "20190804111224_20190804111453_tile_8697"
    assert opened(write_tif(tmp_path / "mine.tif", speckle())).image_id == "mine"


def test_tiles_are_chosen_by_image_id_and_by_number_as_written(archive_root):
    tiles = SpaceNet6(archive_root).tiles("train", "SAR-Intensity")
    first, second = tiles[0].image_id, tiles[1].image_id
    number = first.rpartition("_")[2]
    found = find_images(archive_root, "train", [number, second], None, SAR, ReadOptions())
    assert {image.image_id for image in found} == {first, second}
    with user_error("not_found", key="tiles", value=f"00{number}"):
        find_images(archive_root, "train", [f"00{number}"], None, SAR, ReadOptions())


@pytest.mark.parametrize(
    ("profile", "notes"),
    [({}, 0), ({"pixel": 0.50001}, 0), ({"pixel": 0.52}, 1), ({"pixel": 1.0}, 1), ({"crs": None}, 1)],
)
def test_an_unusual_grid_is_said_in_a_line(tmp_path, profile, notes):
    image = opened(write_tif(tmp_path / "area.tif", speckle(), **profile))
    lines = placement_notes([image], SAR.product)
    assert len(lines) == notes
    assert all(image.path in line for line in lines)
