"""Training, the store, statistics, `check` and prediction agree on which pixels of a file have data, and on its values.

The valid pixels are written out by hand.
"""

import os

import numpy as np
import pytest
import rasterio
from helpers.handmade import folder, speckle, write_labels, write_orientations, write_tile

from sn6.data.normalization import Statistics, measure_statistics
from sn6.data.reader import read_sample
from sn6.data.source import Source
from sn6.data.store import Store, store_folder
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6
from sn6.datasets.statistics import tile_statistics
from sn6.inspection.archive import inspect_archive
from sn6.prediction.inputs import archive_images
from sn6.prediction.raster_images import ReadOptions, raster_image

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=False, min_area=0.0)
WHOLE = slice(0, 64), slice(0, 64)
VALID = np.ones((64, 64), bool)
VALID[:4] = VALID[10:14, 20:30] = VALID[40, 41] = VALID[50, :5] = False


def plain(path, pixels):
    """Only the rule of the data set: 0 in all bands."""
    pixels[:, ~VALID] = 0


def nan_and_infinity(path, pixels):
    pixels[:, :4], pixels[2, 10:14, 20:30] = np.nan, np.nan
    pixels[0, 40, 41], pixels[3, 50, :5] = np.inf, -np.inf


def declared(path, pixels):
    """Nodata −32768 in some bands, beside zeros."""
    pixels[:3, :4], pixels[3, :4] = -32768, 0
    pixels[1, 10:14, 20:30] = pixels[:, 40, 41] = pixels[3, 50, :5] = -32768
    return {"nodata": -32768}


def masked(path, pixels):
    return {"mask": VALID}


SHAPES = [plain, nan_and_infinity, declared, masked]


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.__name__)
def tile(request, tmp_path):
    """An archive with one tile, the path of its image, and the values of its valid pixels."""
    image_id = write_tile(tmp_path, "SAR-Intensity", speckle())
    write_labels(tmp_path, f'{image_id},0,"POLYGON ((0 0, 64 0, 64 64, 0 64, 0 0))",5,5,1\n')
    write_orientations(tmp_path)
    path = next((folder(tmp_path) / "SAR-Intensity").glob("*.tif"))
    pixels = speckle()
    changes = request.param(path, pixels) or {}
    with rasterio.open(path, "r+") as file:
        file.nodata = changes.get("nodata")
        file.write(pixels)
        if "mask" in changes:
            file.write_mask(changes["mask"])
    return tmp_path, path, pixels[:, VALID]


def test_all_readers_agree(tile):
    root, path, values = tile
    archive = SpaceNet6(root)
    (indexed,) = archive.tiles("train", "SAR-Intensity")
    sample = read_sample(archive, indexed, SAR)
    store = Store(archive, SAR, store_folder(root, None))
    store.prepare([indexed])
    stored = store.read(indexed)
    (inspected,) = inspect_archive(root, 1).tiles
    image = inspected.images["SAR-Intensity"]
    (predicted,) = archive_images(SpaceNet6(root), "train", SAR, None)
    for pixels, valid in (
        archive.read(indexed, "SAR-Intensity", (1, 2, 3, 4)),
        (sample["image"], sample["valid"][0]),
        predicted.read(*WHOLE),
        raster_image(str(path), "a", SAR, ReadOptions()).read(*WHOLE),
    ):
        np.testing.assert_array_equal(valid, VALID)
        np.testing.assert_array_equal(pixels[:, VALID], values)
        assert (pixels[:, ~VALID] == 0).all()
    np.testing.assert_array_equal(stored["valid"][0], VALID)
    np.testing.assert_allclose(stored["image"][:, VALID], values, atol=1 / 1024)
    assert (image.valid, image.pixels) == (VALID.sum(), 64 * 64)
    assert image.minimum.tolist() == values.min(axis=1).tolist()
    assert image.maximum.tolist() == values.max(axis=1).tolist()
    (cached,) = tile_statistics(archive, [indexed], "SAR-Intensity", 0.0)  # that check has measured
    assert cached == image.statistics
    assert (cached.pixels, cached.building) == (VALID.sum(), VALID.sum())
    measured = measure_statistics(archive, [indexed], SAR)
    assert measured.mean == pytest.approx(values.mean(axis=1, dtype=float).tolist())
    assert measured.std == pytest.approx(values.std(axis=1, dtype=float).tolist())


def test_an_image_counts_only_the_bands_of_the_network(tile):
    """A tile of an archive counts them all: its store and statistics serve networks with other bands too."""
    root, path, _ = tile
    first = Source(PRODUCTS["SAR-Intensity"], (1,), orient=False, min_area=0.0)
    (in_archive,) = archive_images(SpaceNet6(root), "train", first, None)
    np.testing.assert_array_equal(in_archive.read(*WHOLE)[1], VALID)
    alone = raster_image(str(path), "a", first, ReadOptions()).read(*WHOLE)[1]
    with rasterio.open(path) as file:
        band, nodata, mask = file.read(1), file.nodata, file.dataset_mask() > 0
        has_mask = rasterio.enums.MaskFlags.per_dataset in file.mask_flag_enums[0]
    expected = np.isfinite(band) & (band != (nodata or 0)) & (mask if has_mask else True)
    np.testing.assert_array_equal(alone, expected)


def test_a_scale_in_an_archive_reaches_all_readers(tmp_path):
    image_id = write_tile(tmp_path, "SAR-Intensity", speckle() / 4)
    write_labels(tmp_path, f'{image_id},0,"POLYGON EMPTY",,,\n')
    write_orientations(tmp_path)
    path = next((folder(tmp_path) / "SAR-Intensity").glob("*.tif"))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (4.0,) * 4, (0.5,) * 4
    archive = SpaceNet6(tmp_path)
    (indexed,) = archive.tiles("train", "SAR-Intensity")
    expected = speckle() + 0.5
    means = expected.mean(axis=(1, 2)).tolist()
    np.testing.assert_allclose(read_sample(archive, indexed, SAR)["image"], expected, rtol=1e-6)
    np.testing.assert_allclose(raster_image(str(path), "a", SAR, ReadOptions()).read(*WHOLE)[0], expected, rtol=1e-6)
    assert measure_statistics(archive, [indexed], SAR).mean == pytest.approx(means)
    (inspected,) = inspect_archive(tmp_path, 1).tiles
    assert inspected.images["SAR-Intensity"].maximum.tolist() == pytest.approx(expected.max(axis=(1, 2)).tolist())


def statistics_of(root):
    archive = SpaceNet6(root)
    measured: Statistics = measure_statistics(archive, archive.tiles("train", "SAR-Intensity"), SAR)
    return measured.mean


def test_stores_and_statistics_of_the_old_rule_and_of_another_mask_are_not_used(tmp_path):
    """A .msk file that comes later, and the names and sums that sn6 0.3 wrote."""
    image_id = write_tile(tmp_path, "SAR-Intensity", speckle())
    write_labels(tmp_path, f'{image_id},0,"POLYGON EMPTY",,,\n')
    write_orientations(tmp_path)
    path = next((folder(tmp_path) / "SAR-Intensity").glob("*.tif"))
    before, archive = statistics_of(tmp_path), SpaceNet6(tmp_path)
    (indexed,) = archive.tiles("train", "SAR-Intensity")
    store = Store(archive, SAR, store_folder(tmp_path, None))
    assert store.prepare([indexed]) == [image_id]
    cache = tmp_path / ".sn6" / "statistics-SAR-Intensity.json"
    status = path.stat()
    old = cache.read_text().replace(f"[2, {status.st_size}, ", f"[{status.st_size}, ")
    old = old.replace('"pixels": ', '"pixels": 9')
    assert old != cache.read_text()
    cache.write_text(old)
    assert statistics_of(tmp_path) == before
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(VALID)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the new .msk tells
    assert path.with_name(f"{path.name}.msk").exists()
    assert statistics_of(tmp_path) == pytest.approx(speckle()[:, VALID].mean(axis=1, dtype=float).tolist())
    again = Store(SpaceNet6(tmp_path), SAR, store_folder(tmp_path, None))
    assert again.prepare([indexed]) == [image_id]
    np.testing.assert_array_equal(again.read(indexed)["valid"][0], VALID)
