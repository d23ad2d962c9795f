"""Samples hold what the design says, in the radar's own frame, and follow from (seed, epoch, draw) alone."""

import shutil

import numpy as np
import pytest
import torch
from helpers.handmade import OTHER_STRIP, SAR_STRIP, speckle, write_labels, write_orientations, write_tile
from torch.utils.data import DataLoader

from sn6.data.augment import apply_position, crop_window, draw_position, pad
from sn6.data.datamodule import TileDataModule
from sn6.data.dataset import CropDataset, TileDataset
from sn6.data.normalization import Statistics, measure_statistics
from sn6.data.source import Source, is_rotated
from sn6.data.sampler import EpochSampler
from sn6.datasets.archive import Archive
from sn6.errors import UserError
from sn6.targets.boundary import PixelWeights

RADAR = Source("SAR-Intensity", (1, 2, 3, 4), orient=True, min_area=20.0)
PLAIN = Statistics((0.0,) * 4, (1.0,) * 4, 0.1)


def square(x, y, side):
    return f'"POLYGON (({x} {y}, {x + side} {y}, {x + side} {y + side}, {x} {y + side}, {x} {y}))"'


@pytest.fixture
def root(tmp_path):
    """Tile 1 is imaged from the south, tile 2 from the north; the upper quarter of both is nodata."""
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


def dataset(root, source=RADAR, statistics=PLAIN, **options):
    archive = Archive(root)
    return TileDataset(archive, archive.tiles("train", source.product), source, statistics, **options)


def by_orientation(tiles):
    """The samples of the tile from the north and of that from the south."""
    north = next(i for i in range(2) if tiles.tiles[i].orientation == 0)
    return tiles[north], tiles[1 - north]


def test_what_a_sample_holds(root):
    sample = dataset(root)[0]
    assert sample["image"].shape == (4, 64, 64)
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].shape == sample["valid"].shape == (1, 64, 64)
    assert sample["mask"].dtype == torch.float32
    assert sample["valid"].dtype == torch.bool
    assert "weight" not in sample
    assert sample["image_id"].endswith("_tile_2")  # by image id: the strip of tile 2 flew first


def test_the_mask_leaves_out_small_footprints_and_those_on_nodata(root):
    north, _ = by_orientation(dataset(root))
    mask = north["mask"][0]
    assert mask[30:42, 4:16].all()
    assert not mask[40:49, 40:49].any()  # 8.5² px = 18 m², under 20
    assert not mask[2:12, 30:40].any()  # wholly on nodata
    assert mask[10:22, 50:62].all()  # partly on nodata
    assert mask.sum() == 144 + 144
    smaller = Source("SAR-Intensity", (1,), orient=True, min_area=10.0)
    assert by_orientation(dataset(root, smaller, Statistics((0.0,), (1.0,), 0.1)))[0]["mask"].sum() > 288


def test_tiles_from_the_south_are_turned_by_180_degrees(root):
    north, south = by_orientation(dataset(root, pixel_weights=PixelWeights(w0=10.0, sigma=20.0)))
    assert north["weight"].unique().numel() > 10
    for key in ("image", "mask", "valid", "weight"):
        assert torch.equal(south[key], north[key].flip(-1, -2)), key
    as_they_lie = Source("SAR-Intensity", (1, 2, 3, 4), orient=False, min_area=20.0)
    north, south = by_orientation(dataset(root, as_they_lie))
    assert torch.equal(south["image"], north["image"])


def test_optical_tiles_are_not_turned(root):
    write_tile(root, "PS-RGB", np.ones((3, 64, 64)))
    tiles = Archive(root).tiles("train", "PS-RGB")
    assert tiles[0].orientation == 1
    assert not is_rotated(tiles[0], Source("PS-RGB", (1, 2, 3), orient=True, min_area=20.0))


def test_normalisation_is_over_valid_pixels_and_leaves_nodata_at_zero(root):
    archive = Archive(root)
    measured = measure_statistics(archive, archive.tiles("train", "SAR-Intensity"), RADAR)
    pixels = speckle()[:, 16:].astype(float)
    assert measured.mean == pytest.approx(pixels.mean(axis=(1, 2)))
    assert measured.std == pytest.approx(pixels.std(axis=(1, 2)))
    on_valid = 144 + 12 * 6  # of the second footprint the lower half lies on data
    assert measured.building_fraction == pytest.approx(on_valid / (48 * 64))
    sample = dataset(root, statistics=measured)[0]
    image, valid = sample["image"], sample["valid"][0]
    assert torch.all(image[:, ~valid] == 0)
    assert image[:, valid].mean().item() == pytest.approx(0, abs=1e-5)
    assert image[:, valid].std().item() == pytest.approx(1, abs=1e-3)
    as_is = dataset(root, statistics=measured, nodata="as_is")[0]["image"][:, ~valid]
    assert as_is[:, 0].numpy() == pytest.approx(-np.array(measured.mean) / measured.std, rel=1e-5)


def test_a_strip_without_orientation_is_named(root):
    write_orientations(root, f"{OTHER_STRIP} 0\n")
    with pytest.raises(UserError, match=f"lacks the strip {SAR_STRIP} of {SAR_STRIP}_tile_1; add a line"):
        list(dataset(root))


def test_what_a_worker_finds_is_told_in_one_line(root):
    pixels = speckle()
    pixels[0, 5, 6] = np.nan
    write_tile(root, "SAR-Intensity", pixels, number=2, strip=OTHER_STRIP)
    with pytest.raises(UserError) as error:
        list(DataLoader(dataset(root), num_workers=1))
    message = str(error.value)
    assert message.startswith(str(root))
    assert "NaN or infinity, first at row 5, column 6" in message
    assert "\n" not in message


def test_unknown_products_and_bands_are_told():
    with pytest.raises(UserError, match=r"data.product=SAR is unknown; the products are SAR-Intensity, PS-RGB"):
        TileDataModule(root=".", product="SAR")
    with pytest.raises(
        UserError, match=r"data.bands=\[3, 5\] does not do: RGBNIR has the bands 1 to 4 \(B, G, R, NIR\)"
    ):
        Source("RGBNIR", (3, 5), orient=True, min_area=20.0)


def test_crops_prefer_valid_pixels():
    valid = np.zeros((256, 256), dtype=bool)
    valid[:, 200:] = True  # a fifth of the tile
    shares = [valid[crop_window(valid, 64, np.random.default_rng(seed))].mean() for seed in range(50)]
    blind = [
        np.random.default_rng(seed).integers(193, size=2)[1] for seed in range(50)
    ]  # left edges of a crop put down anywhere
    assert np.mean(np.array(shares) >= 0.25) > 0.9
    assert np.mean(np.array(blind) >= 200 - 48) < 0.5


def test_a_tile_smaller_than_the_crop_is_extended_by_nodata():
    sample = {"image": np.ones((2, 30, 40), np.float32), "valid": np.ones((1, 30, 40), bool), "image_id": "t"}
    crop = pad(sample, 48)
    assert crop["image"].shape == (2, 48, 48)
    assert crop["valid"].sum() == 30 * 40
    assert crop["image"][:, ~crop["valid"][0]].sum() == 0


@pytest.mark.parametrize(("augmentation", "positions"), [("none", 1), ("flip_lr", 2), ("dihedral", 8)])
def test_augmentation_flips_and_turns(augmentation, positions):
    image = np.arange(9.0).reshape(1, 3, 3)
    seen = set()
    for seed in range(200):
        flip, quarters = draw_position(augmentation, np.random.default_rng(seed))
        given = apply_position(torch.from_numpy(image), (flip, quarters)).numpy()
        assert np.array_equal(given, np.rot90(image[..., ::-1] if flip else image, quarters, axes=(1, 2)))
        seen.add(given.tobytes())
    assert len(seen) == positions
    if augmentation == "flip_lr":  # and never the one that turns the sensor's side over
        assert seen == {image.tobytes(), np.ascontiguousarray(image[..., ::-1]).tobytes()}


def test_a_crop_is_a_function_of_seed_epoch_and_draw(root):
    crops = CropDataset(dataset(root), crop=16, crops_per_tile=3, augmentation="flip_lr", seed=7)
    assert len(crops) == 6
    first = crops[2, 5]["image"]
    crops[0, 1]  # what was asked for before does not matter
    assert torch.equal(crops[2, 5]["image"], first)
    again = CropDataset(dataset(root), crop=16, crops_per_tile=3, augmentation="flip_lr", seed=7)
    assert torch.equal(again[2, 5]["image"], first)
    others = (crops[3, 5], crops[2, 3], CropDataset(dataset(root), 16, 3, "flip_lr", seed=8)[2, 5])
    assert not any(torch.equal(other["image"], first) for other in others)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_the_batches_of_one(ranks):
    whole = list(one := EpochSampler(draws=10, batch_size=4, seed=3))
    assert len(one) == 12
    assert {draw for _, draw in whole} == set(range(10))  # every draw, and two a second time to fill the last batch
    parts = [list(EpochSampler(10, 4, 3, rank, ranks)) for rank in range(ranks)]
    share = 4 // ranks
    for step in range(3):
        together = sorted(draw for part in parts for draw in part[step * share : (step + 1) * share])
        assert together == sorted(whole[step * 4 : step * 4 + 4])


def test_epochs_differ_and_come_back():
    sampler = EpochSampler(draws=20, batch_size=5, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [d for _, d in first] != [d for _, d in second]
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_bands_by_default():
    """The baseline's order of PS-RGB, and no other product's colours mixed up by it."""
    simulation = {"tiles": 1}  # made at no time: the root is not looked at
    bands = {
        product: TileDataModule(root=".", product=product, simulation=simulation).source.bands
        for product in ("SAR-Intensity", "PS-RGB", "PS-RGBNIR", "RGBNIR", "PAN")
    }
    assert bands["PS-RGB"] == (3, 1, 1, 2)
    assert bands["PAN"] == (1,)
    assert all(bands[product] == (1, 2, 3, 4) for product in ("SAR-Intensity", "PS-RGBNIR", "RGBNIR"))


def test_a_tile_without_its_optical_image_keeps_its_ground_apart_all_the_same(archive_root, tmp_path):
    """The optical fold is the radar fold less the tiles that lack the image."""
    root = shutil.copytree(archive_root, tmp_path / "root")

    def fold(product):
        module = TileDataModule(root=str(root), product=product, mean=[0.0] * 4, std=[1.0] * 4)
        module.setup()
        return {use: {t.image_id for t in getattr(module.fold, use)} for use in ("train", "validation")}

    radar = fold("SAR-Intensity")
    for use in ("train", "validation"):
        lost = sorted(radar[use])[-1]
        next((root / "train/AOI_11_Rotterdam/PS-RGB").glob(f"*{lost}.tif")).unlink()
        assert fold("PS-RGB")[use] == radar[use] - {lost}


def test_without_a_root_the_way_to_the_data_is_told():
    with pytest.raises(UserError, match=r"data.root is not set; .*experiment=quickstart.*sn6.simulate"):
        TileDataModule(root=None, product="SAR-Intensity", bands=[1, 2, 3, 4])


@pytest.mark.parametrize(
    ("simulation", "message"),
    [
        ({"scale": "huge"}, r"data\.simulation: scale='huge' does not do.*'medium'"),
        ({"tile": 3}, r"data\.simulation: there is no 'tile'; the keys are scale, tiles"),
        ({"tiles": "a"}, r"data\.simulation: tiles='a' does not do"),
        ({"tiles": 0}, r"tiles=0 does not do; give 1 or more"),
    ],
)
def test_a_simulation_that_cannot_be_made_is_told_before_anything_is(tmp_path, simulation, message):
    with pytest.raises(UserError, match=message):
        TileDataModule(root=str(tmp_path / "root"), product="SAR-Intensity", simulation=simulation)
    assert not list(tmp_path.iterdir())


def test_statistics_that_do_not_fit_the_bands_are_told():
    with pytest.raises(UserError, match=r"data.mean and data.std go together.*4 bands"):
        TileDataModule(root=".", product="SAR-Intensity", bands=[1, 2, 3, 4], mean=[1.0], std=[1.0])
