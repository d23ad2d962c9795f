"""Images are read a rectangle at a time as the archive reads tiles whole."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from helpers.handmade import speckle, write_tif

from sn6.data.source import Source
from sn6.datasets.archive import Archive
from sn6.prediction.images import archive_images, geotiff_image

SOURCES = [
    Source("SAR-Intensity", (1, 2, 3, 4), orient=True, min_area=0.0),
    Source("PS-RGB", (3, 1, 1, 2), orient=True, min_area=0.0),
    Source("RGBNIR", (4, 1), orient=True, min_area=0.0),  # 1 m: two pixels of the grid a pixel
    Source("PAN", (1,), orient=True, min_area=0.0),
]
SAR = SOURCES[0]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.product)
def test_a_rectangle_is_that_part_of_the_tile_in_the_frame_of_training(archive_root, source):
    archive = Archive(archive_root)
    images = {image.image_id: image for image in archive_images(archive_root, "train", source, None)}
    turned = 0
    for tile in archive.tiles("train", source.product)[::3]:
        pixels, valid = archive.read(tile, source.product, source.bands)
        if source.product == "SAR-Intensity" and tile.orientation == 1:
            pixels, valid, turned = pixels[:, ::-1, ::-1], valid[::-1, ::-1], turned + 1
        image = images[tile.image_id]
        assert (image.height, image.width) == valid.shape
        assert image.corner == (tile.bounds[0], tile.bounds[3])
        for rows, columns in (
            (slice(0, 128), slice(0, 128)),
            (slice(31, 64), slice(5, 128)),
            (slice(3, 4), slice(2, 9)),
        ):
            part, where = image.read(rows, columns, source.bands)
            assert (part == pixels[:, rows, columns]).all()
            assert (where == valid[rows, columns]).all()
    assert (turned > 0) == (source.product == "SAR-Intensity")


def test_nan_and_the_nodata_of_the_file_are_nodata(tmp_path):
    pixels = speckle()
    pixels[:, 3, 5] = pixels[0, 8, 9] = np.nan
    pixels[:, 20:30, 10:20] = -9999
    pixels[:, 40, 41] = 0
    path = write_tif(tmp_path / "area.tif", pixels)
    with rasterio.open(path, "r+") as file:
        file.nodata = -9999
    read, valid = geotiff_image(path, SAR, turn=False).read(slice(0, 64), slice(0, 64), SAR.bands)
    expected = np.ones((64, 64), dtype=bool)
    expected[3, 5] = expected[8, 9] = expected[40, 41] = False
    expected[20:30, 10:20] = False
    assert (valid == expected).all()
    assert np.isfinite(read).all()
    assert (read[:, expected] == pixels[:, expected]).all()


def test_a_turned_image_is_the_same_turned(tmp_path):
    image = geotiff_image(write_tif(tmp_path / "area.tif", speckle(size=50)[:, :40]), SAR, turn=True)
    whole, _ = replace(image, turned=False).read(slice(0, 40), slice(0, 50), SAR.bands)
    part, _ = image.read(slice(4, 9), slice(10, 30), SAR.bands)
    assert (part == np.rot90(whole, 2, axes=(1, 2))[:, 4:9, 10:30]).all()


def test_a_challenge_file_keeps_its_image_id(tmp_path):
    name = "SN6_Test_Public_AOI_11_Rotterdam_SAR-Intensity_20190804111224_20190804111453_tile_8697.tif"
    image = geotiff_image(write_tif(tmp_path / name, speckle()), SAR, turn=False)
    assert image.image_id == "20190804111224_20190804111453_tile_8697"
    assert geotiff_image(write_tif(tmp_path / "mine.tif", speckle()), SAR, turn=False).image_id == "mine"
