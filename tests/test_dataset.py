"""Samples have the documented contents, in the sensor's frame, and depend only on (seed, epoch, draw)."""

import shutil

import numpy as np
import pytest
import torch
from helpers.errors import user_error
from helpers.handmade import OTHER_STRIP, SAR_STRIP, speckle, write_labels, write_orientations, write_tif, write_tile
from torch.utils.data import DataLoader

from sn6.cli import validate_arguments
from sn6.data.augment import FlipLR, crop_window, pad
from sn6.data.datamodule import TileDataModule, per_device_batch_size
from sn6.data.dataset import CropDataset, TileDataset
from sn6.data.normalization import Statistics, measure_statistics
from sn6.data.sampler import EpochSampler
from sn6.data.source import Source, is_rotated
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6, tile_path
from sn6.errors import UserError
from sn6.targets.boundary import BoundaryWeights

SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=20.0)
UNSCALED = Statistics((0.0,) * 4, (1.0,) * 4, 0.1)


def square(x, y, side):
    return f'"POLYGON (({x} {y}, {x + side} {y}, {x + side} {y + side}, {x} {y + side}, {x} {y}))"'


@pytest.fixture
def root(tmp_path):
    """Write tile 1, imaged from the south, and tile 2, from the north; the upper quarter of both is nodata."""
    pixels = speckle()
    pixels[:, :16] = 0
    for number, strip in ((1, SAR_STRIP), (2, OTHER_STRIP)):
        write_tile(tmp_path, "SAR-Intensity", pixels, number=number, strip=strip)
    polygons = (square(4, 30, 12), square(40, 40, 8.5), square(30, 2, 10), square(50, 10, 12))
    rows = "".join(
        f"{strip}_tile_{number},{i},{polygon},5,5,1\n"
        for number, strip in ((1, SAR_STRIP), (2, OTHER_STRIP))
        for i, polygon in enumerate(polygons)
    )
    write_labels(tmp_path, rows)
    write_orientations(tmp_path)
    return tmp_path


def dataset(root, source=SAR, statistics=UNSCALED, **options):
    archive = SpaceNet6(root)
    return TileDataset(archive, archive.tiles("train", source.product.name), source, statistics, **options)


def by_orientation(tiles):
    """Return the sample of the tile imaged from the north and of that imaged from the south."""
    north = next(i for i in range(2) if tiles.tiles[i].orientation == 0)
    return tiles[north], tiles[1 - north]


def test_contents_of_a_sample(root):
    sample = dataset(root)[0]
    assert sample["image"].shape == (4, 64, 64)
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].shape == sample["valid"].shape == (1, 64, 64)
    assert sample["mask"].dtype == torch.float32
    assert sample["valid"].dtype == torch.bool
    assert "weight" not in sample
    assert sample["image_id"].endswith("_tile_2")  # sorted by image id: the strip of tile 2 is earlier


def test_the_mask_has_no_small_footprints_and_none_on_nodata(root):
    north, _ = by_orientation(dataset(root))
    mask = north["mask"][0]
    assert mask[30:42, 4:16].all()
    assert not mask[40:49, 40:49].any()  # 8.5² px = 18 m², below 20
    assert not mask[2:12, 30:40].any()  # completely on nodata
    assert mask[10:22, 50:62].all()  # partly on nodata
    assert mask.sum() == 144 + 144
    smaller = Source(PRODUCTS["SAR-Intensity"], (1,), orient=True, min_area=10.0)
    assert by_orientation(dataset(root, smaller, Statistics((0.0,), (1.0,), 0.1)))[0]["mask"].sum() > 288


def test_tiles_imaged_from_the_south_are_rotated_by_180_degrees(root):
    north, south = by_orientation(dataset(root, targets={"weight": BoundaryWeights(w0=10.0, sigma=10.0)}))
    assert north["weight"].unique().numel() > 10
    for key in ("image", "mask", "valid", "weight"):
        assert torch.equal(south[key], north[key].flip(-1, -2)), key
    not_oriented = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=False, min_area=20.0)
    north, south = by_orientation(dataset(root, not_oriented))
    assert torch.equal(south["image"], north["image"])


def test_optical_tiles_are_not_rotated(root):
    write_tile(root, "PS-RGB", np.ones((3, 64, 64)))
    data_set = SpaceNet6(root)
    tiles = data_set.tiles("train", "PS-RGB")
    assert tiles[0].orientation == 1
    assert not is_rotated(data_set, tiles[0], Source(PRODUCTS["PS-RGB"], (1, 2, 3), orient=True, min_area=20.0))


def test_images_are_normalised_over_valid_pixels_and_nodata_is_zero(root):
    archive = SpaceNet6(root)
    measured = measure_statistics(archive, archive.tiles("train", "SAR-Intensity"), SAR)
    pixels = speckle()[:, 16:].astype(float)
    assert measured.mean == pytest.approx(pixels.mean(axis=(1, 2)))
    assert measured.std == pytest.approx(pixels.std(axis=(1, 2)))
    on_valid = 144 + 12 * 6  # the lower half of the second footprint is on valid pixels
    assert measured.building_fraction == pytest.approx(on_valid / (48 * 64))
    sample = dataset(root, statistics=measured)[0]
    image, valid = sample["image"], sample["valid"][0]
    assert torch.all(image[:, ~valid] == 0)
    assert image[:, valid].mean().item() == pytest.approx(0, abs=1e-5)
    assert image[:, valid].std().item() == pytest.approx(1, abs=1e-3)
    as_is = dataset(root, statistics=measured, nodata="as_is")[0]["image"][:, ~valid]
    assert as_is[:, 0].numpy() == pytest.approx(-np.array(measured.mean) / measured.std, rel=1e-5)


def test_a_strip_without_look_direction(root):
    path = write_orientations(root, f"{OTHER_STRIP} 0\n")
    with user_error("missing_value", path.name, SAR_STRIP):
        list(dataset(root))


def test_an_error_in_a_worker_has_one_line(root):
    image_id = write_tile(root, "SAR-Intensity", speckle(), number=2, strip=OTHER_STRIP)
    tiles = dataset(root)
    path = tile_path(root, "train", "SAR-Intensity", image_id)
    write_tif(path, speckle(bands=3))
    with pytest.raises(UserError) as error:  # raised again by the DataLoader, without its attributes
        list(DataLoader(tiles, num_workers=1))
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_unknown_products_and_bands(root):
    with user_error("unknown_value", "data.product", "SAR"):
        TileDataModule(SpaceNet6(root), product="SAR")
    with user_error("invalid_value", "data.bands", [3, 5]):
        Source(PRODUCTS["RGBNIR"], (3, 5), orient=True, min_area=20.0)


@pytest.mark.parametrize("key", ["crop", "crops_per_tile", "batch_size", "eval_batch_size"])
def test_sizes_are_positive(key):
    with user_error("invalid_value", value=0) as error:
        validate_arguments(TileDataModule, {key: 0}, "data", strict=True)
    assert key in str(error.value)


def test_crops_prefer_valid_pixels():
    valid = np.zeros((256, 256), dtype=bool)
    valid[:, 200:] = True  # a fifth of the tile
    fractions = [valid[crop_window(valid, 64, np.random.default_rng(seed))].mean() for seed in range(50)]
    uniform = [np.random.default_rng(seed).integers(193, size=2)[1] for seed in range(50)]  # left edges of random crops
    assert np.mean(np.array(fractions) >= 0.25) > 0.9
    assert np.mean(np.array(uniform) >= 200 - 48) < 0.5


def test_a_tile_smaller_than_the_crop_is_padded_with_nodata():
    sample = {"image": np.ones((2, 30, 40), np.float32), "valid": np.ones((1, 30, 40), bool), "image_id": "t"}
    crop = pad(sample, 48)
    assert crop["image"].shape == (2, 48, 48)
    assert crop["valid"].sum() == 30 * 40
    assert crop["image"][:, ~crop["valid"][0]].sum() == 0


def test_a_crop_is_a_function_of_seed_epoch_and_draw(root):
    crops = CropDataset(dataset(root), crop=16, crops_per_tile=3, augmentation=FlipLR(), seed=7)
    assert len(crops) == 6
    first = crops[2, 5]["image"]
    crops[0, 1]  # earlier samples do not matter
    assert torch.equal(crops[2, 5]["image"], first)
    equal = CropDataset(dataset(root), crop=16, crops_per_tile=3, augmentation=FlipLR(), seed=7)
    assert torch.equal(equal[2, 5]["image"], first)
    others = (crops[3, 5], crops[2, 3], CropDataset(dataset(root), 16, 3, FlipLR(), seed=8)[2, 5])
    assert not any(torch.equal(other["image"], first) for other in others)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_the_batches_of_one(ranks):
    single = EpochSampler(draws=10, batch_size=4, seed=3)
    draws = list(single)
    assert len(single) == 12
    assert {draw for _, draw in draws} == set(range(10))  # every draw, and two of them again to fill the last batch
    by_rank = [list(EpochSampler(10, 4, 3, rank, ranks)) for rank in range(ranks)]
    size = 4 // ranks
    for step in range(3):
        batch = sorted(draw for part in by_rank for draw in part[step * size : (step + 1) * size])
        assert batch == sorted(draws[step * 4 : step * 4 + 4])


def test_epochs_differ_and_can_be_repeated():
    sampler = EpochSampler(draws=20, batch_size=5, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [d for _, d in first] != [d for _, d in second]
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize(
    ("product", "bands"),
    [("PS-RGB", (3, 1, 1, 2)), ("PAN", (1,)), ("SAR-Intensity", (1, 2, 3, 4)), ("RGBNIR", (1, 2, 3, 4))],
)
def test_default_bands(archive_root, product, bands):
    """PS-RGB has the baseline's order, the other products have that on disk."""
    assert TileDataModule(SpaceNet6(archive_root), product=product).source.bands == bands


def test_optical_folds_are_sar_folds_without_the_tiles_that_lack_the_image(archive_root, tmp_path):
    root = shutil.copytree(archive_root, tmp_path / "root")

    def fold(product):
        module = TileDataModule(SpaceNet6(root), product=product, mean=[0.0] * 4, std=[1.0] * 4)
        module.setup()
        return {use: {t.image_id for t in getattr(module.fold, use)} for use in ("train", "validation")}

    sar = fold("SAR-Intensity")
    for use in ("train", "validation"):
        removed = sorted(sar[use])[-1]
        next((root / "train/AOI_11_Rotterdam/PS-RGB").glob(f"*{removed}.tif")).unlink()
        assert fold("PS-RGB")[use] == sar[use] - {removed}


def test_a_root_is_required():
    with user_error("missing_value", "data.root"):
        TileDataModule(SpaceNet6(None), product="SAR-Intensity", bands=[1, 2, 3, 4])


@pytest.mark.parametrize(
    ("mean", "std", "key"),
    [([1.0], [1.0], "data.mean"), ([1.0] * 4, [1.0], "data.std"), ([1.0] * 4, None, "data.mean")],
)
def test_statistics_that_do_not_fit_the_bands(root, mean, std, key):
    with user_error("invalid_value", key):
        TileDataModule(SpaceNet6(root), product="SAR-Intensity", mean=mean, std=std)


@pytest.mark.parametrize(("devices", "expected"), [(1, 6), (2, 3), (3, 2)])
def test_a_batch_is_divided_equally_among_devices(devices, expected):
    assert per_device_batch_size(6, devices) == expected


def test_a_batch_that_cannot_be_divided():
    with user_error("invalid_value", "data.batch_size", 6):
        per_device_batch_size(6, 4)
