"""The augmentation of radar crops: geometry by one resampling, changes in decibels, crops that prefer buildings."""

import math

import numpy as np
import pytest
import torch
from helpers.errors import user_error
from helpers.labels import labels_of, random_buildings
from scipy.ndimage import affine_transform

from sn6.cli import validate_arguments
from sn6.data.augment import (
    Augmentation,
    FlipLR,
    apply_position,
    change_decibels,
    crop_window,
    draw_position,
    draw_warp,
)
from sn6.data.datamodule import TileDataModule
from sn6.data.dataset import CropDataset
from sn6.data.normalization import Statistics
from sn6.data.radar import Radar, draw_speckle
from sn6.data.samples import SampleMaker
from sn6.data.warp import Resampling, Warp
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.targets.boundary import BoundaryWeights
from sn6.targets.centre import Centre
from sn6.targets.contact import Contact
from sn6.targets.distance import Distance
from sn6.targets.edge import InnerEdge
from sn6.targets.height import Height
from sn6.targets.mask import Mask
from sn6.targets.offset import Offset
from sn6.targets.target import tile_layers

PIXEL = 0.5  # m
STILL = {"scale": (1.0, 1.0), "rotation": 0.0}
QUIET = {"gain": 0.0, "band_offset": 0.0, "speckle": None}
WARPS = [Warp(1.3, 17.0), Warp(0.7, -5.0), Warp(2.0), Warp(1.0, 40.0)]


def seeded(seed=0):
    return np.random.default_rng(seed)


def place_after(warp, place, height, width, crop):
    """Return where a point (rows, columns) of a window is in its crop: scaled and rotated about the centre."""
    angle = math.radians(warp.rotation)
    anticlockwise = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    from_centre = np.asarray(place) - ((height - 1) / 2, (width - 1) / 2)
    return warp.scale * from_centre @ anticlockwise.T + (crop - 1) / 2


def warped_sample(instances, targets, warp, crop, **more):
    """Return the sample of a scaled and rotated window, whose image is 0 dB plus what `more` gives of it."""
    options = {"position": (False, 0), "nodata": "zero", "valid": np.ones(instances.shape, bool)} | more
    image = options.get("image", np.zeros((1, *instances.shape), np.float32))
    maker = SampleMaker(Statistics((0.0,), (1.0,), 0.3), options["nodata"], targets)
    layers = {"image": image, "valid": options["valid"][None], "instances": instances[None].astype(np.int32)}
    layers |= tile_layers(targets, labels_of(instances, pixel_size=PIXEL))
    moved = {name: apply_position(torch.from_numpy(one), options["position"]) for name, one in layers.items()}
    resampled, inside = maker.resample(moved, warp, crop, bool(options["valid"].all()))
    (sample,) = ({name: one[0] for name, one in maker.empty(1, crop, crop).items()},)
    maker.fill(sample, resampled, options["position"], warp, inside)
    return {name: one.numpy() for name, one in sample.items()}


# --- geometry


@pytest.mark.parametrize("warp", WARPS, ids=str)
@pytest.mark.parametrize("shape", [(150, 150), (61, 80)])
def test_pixels_move_as_with_scipy(warp, shape):
    image = seeded().normal(size=shape)
    crop = 64
    back = np.array([place_after(Warp(1 / warp.scale, -warp.rotation), p, 1, 1, 1) for p in ((1, 0), (0, 1))]).T
    start = (np.array(shape) - 1) / 2 - back @ np.full(2, (crop - 1) / 2)
    resampling = Resampling(warp, crop, *shape, "cpu")
    inside = np.ones((crop, crop), bool) if resampling.inside is None else resampling.inside[0].numpy()
    expected, options = {}, {"offset": start, "output_shape": (crop, crop)}
    for order in (0, 1):
        expected[order] = affine_transform(image, back, order=order, mode="nearest", **options)
    smooth = resampling.bilinear(torch.from_numpy(image[None]).float())[0].numpy()
    np.testing.assert_allclose(smooth[inside], expected[1][inside], atol=1e-3)
    nearest = resampling.nearest({"image": torch.from_numpy(image[None])})["image"][0].numpy()
    assert np.mean(nearest[inside] == expected[0][inside]) > 0.999  # but for pixels half way between two
    assert (nearest[~inside] == 0).all()
    sources = np.moveaxis(np.indices((crop, crop)), 0, -1) @ back.T + start
    np.testing.assert_array_equal(inside, ((sources > -0.5) & (sources < np.array(shape) - 0.5)).all(axis=-1))


@pytest.mark.parametrize("quarters", [1, 2, 3, 0])
def test_rotations_by_90_degrees_are_those_of_numpy(quarters):
    image = seeded().integers(1, 1000, (1, 24, 24))
    resampling = Resampling(Warp(1.0, 90.0 * quarters), 24, 24, 24, "cpu")
    expected = np.rot90(image, quarters, axes=(1, 2))
    moved = resampling.nearest({"image": torch.from_numpy(image)})["image"]
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_allclose(resampling.bilinear(torch.from_numpy(image).float()), expected, atol=0.01)
    assert resampling.inside is None


def test_scale_2_doubles_a_square_and_the_distances_in_it():
    instances = np.zeros((40, 40), np.int32)
    instances[17:23, 14:20] = 1
    reach = 10.0
    sample = warped_sample(instances, {"distance": Distance(reach), "mask_layer": Mask()}, Warp(2.0), 60)
    drawn = np.zeros((60, 60), np.int32)
    drawn[24:36, 18:30] = 1  # twelve pixels wide, about the same point relative to the centre
    np.testing.assert_array_equal(sample["mask"][0], drawn)
    np.testing.assert_array_equal(sample["mask_layer"][0], drawn)
    expected = Distance(reach).tile(labels_of(drawn, pixel_size=PIXEL))
    inside = drawn > 0
    in_pixels = reach / PIXEL
    np.testing.assert_allclose(sample["distance"][0][inside] * in_pixels, expected[0][inside] * in_pixels, atol=1.1)
    assert sample["distance"].max() * in_pixels == pytest.approx(6, abs=0.15)  # 3 pixels before


def test_distances_beyond_their_reach_stay_there_at_any_scale():
    instances = np.zeros((100, 100), np.int32)
    instances[20:80, 20:80] = 1  # 30 m wide, 15 m after
    drawn = np.zeros((50, 50), np.int32)
    drawn[10:40, 10:40] = 1
    sample = warped_sample(instances, {"distance": Distance(5.0)}, Warp(0.5), 50)
    expected = Distance(5.0).tile(labels_of(drawn, pixel_size=PIXEL))
    np.testing.assert_array_equal(sample["distance"][expected == 1], 1)
    ring = (expected > 0.05) & (expected < 0.5)  # known before
    np.testing.assert_allclose(sample["distance"][ring], expected[ring], atol=0.6 / 10)


@pytest.mark.parametrize("warp", WARPS, ids=str)
@pytest.mark.parametrize("position", [(False, 0), (True, 1), (False, 2)])
def test_offsets_lead_to_the_moved_centres(warp, position):
    instances = np.zeros((60, 60), np.int32)
    instances[20:31, 12:25] = 1
    instances[25:40, 25:33] = 2  # touches the first one
    sample = warped_sample(instances, {"offset": Offset(), "centre": Centre()}, warp, 80, position=position)
    moved = apply_position(torch.from_numpy(instances[None]), position)[0].numpy()
    centres = [place_after(warp, np.argwhere(moved == number).mean(axis=0), 60, 60, 80) for number in (1, 2)]
    pixels = np.argwhere(sample["mask"][0] > 0)
    ends = pixels + sample["offset"][:, *pixels.T].T / PIXEL
    distances = np.linalg.norm(ends[:, None] - centres, axis=2).min(axis=1)
    assert distances.max() <= math.sqrt(0.5) * warp.scale + 1e-3  # of the nearest pixel
    assert np.isnan(sample["offset"][:, (sample["mask"] == 0)[0] & sample["valid"][0]]).all()
    to_nearest = np.linalg.norm(np.argwhere(np.ones((80, 80)))[:, None] - centres, axis=2).min(axis=1) * PIXEL
    heat = np.exp(-(to_nearest.reshape(80, 80) ** 2) / (2 * 1.5**2))
    shown = heat > 0.3
    np.testing.assert_allclose(sample["centre"][0][shown], heat[shown], atol=0.1)


@pytest.mark.parametrize(
    "target", [Distance(), Centre(), BoundaryWeights(10.0, 2.5), Offset()], ids=lambda t: str(t)[:8]
)
@pytest.mark.parametrize("warp", WARPS[:3], ids=str)
def test_a_continuous_map_is_about_that_of_the_moved_buildings(target, warp):
    instances = np.zeros((70, 70), np.int32)
    instances[15:55, 15:55] = random_buildings(seeded(3), (40, 40), 8, 18)
    crop = 210
    sample = warped_sample(instances, {"map": target, "numbers": Numbers()}, warp, crop)
    again = warped_sample(sample["numbers"][0].astype(np.int32), {"map": target}, Warp(), crop)
    one, two = sample["map"], again["map"]
    shown = np.isfinite(one) & np.isfinite(two) & (two != np.median(two))
    spread = two[shown].std()
    assert np.mean(np.abs(one - two)[shown]) < 0.3 * spread


class Numbers(Height):
    """Map each pixel to the number of its building."""

    def tile(self, labels):
        return labels.instances.astype(np.float32)[None]


def test_maps_of_classes_keep_their_values():
    instances = random_buildings(seeded(1), (90, 90), 20, 24)
    targets = {"contact": Contact(), "edge": InnerEdge(), "height": Height()}
    sample = warped_sample(instances, targets, Warp(1.2, 4.0), 64)
    assert set(np.unique(sample["contact"])) == set(np.unique(sample["edge"])) == {0, 1}
    assert np.isnan(sample["height"][sample["mask"] > 0]).all()  # which are not known
    assert (sample["height"][sample["mask"] == 0] == 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_corners_of_a_crop_have_data_where_the_tile_has(seed):
    augmentation, rng = Radar(), seeded(seed)
    warp = draw_warp(augmentation, rng)
    valid = np.ones((128, 130), bool)
    window = valid[crop_window(valid, warp.source_size(64), rng)]
    assert 0.8 <= warp.scale <= 1.25
    assert abs(warp.rotation) <= 5
    resampling = Resampling(warp, 64, *window.shape, "cpu")
    assert resampling.inside is None
    for places in (resampling.rows, resampling.columns):  # and the window is no larger than that needs
        assert 0 <= places.min() + 1e-3 <= 1
        assert window.shape[0] - 2 <= places.max() - 1e-3 <= window.shape[0] - 1


@pytest.mark.parametrize("nodata", ["zero", "as_is"])
def test_nodata_stays_nodata_and_does_not_darken_its_neighbours(nodata):
    valid = np.ones((80, 80), bool)
    valid[:, :20] = valid[37, 41] = False
    image = np.where(valid, np.float32(30), np.float32(0))[None]
    instances = np.zeros((80, 80), np.int32)
    sample = warped_sample(instances, {}, Warp(0.9, 5.0), 100, image=image, valid=valid, nodata=nodata)
    moved = Resampling(Warp(0.9, 5.0), 100, 80, 80, "cpu").nearest({"valid": torch.from_numpy(valid[None])})
    np.testing.assert_array_equal(sample["valid"], moved["valid"])  # beyond the tile it is not valid either
    assert not sample["valid"][0, 0, 0]
    assert (sample["image"][~sample["valid"]] <= 30).all()
    if nodata == "zero":
        np.testing.assert_allclose(sample["image"][sample["valid"]], 30, rtol=1e-6)
        assert (sample["image"][~sample["valid"]] == 0).all()


class Still(FlipLR):
    """Flip, and scale and rotate by nothing."""

    def warp(self, rng):
        return Warp(1.0, 0.0)

    def decibels(self, image, mean, rng):
        return image + 0


def datamodule(root, augmentation, **more):
    options = {"product": "SAR-Intensity", "crop": 48, "batch_size": 4, "num_workers": 0} | more
    data = TileDataModule(SpaceNet6(root), augmentation=augmentation, **options)
    data.setup()
    return data


def first_crops(root, augmentation, number=6, **more):
    crops = datamodule(root, augmentation, **more).train_dataloader().dataset
    return [crops[2, draw] for draw in range(number)]


def test_crops_that_are_not_changed_are_equal_to_the_bit(archive_root):
    for one, two in zip(first_crops(archive_root, Still()), first_crops(archive_root, FlipLR()), strict=True):
        for key in ("image", "mask", "valid"):
            assert torch.equal(one[key], two[key])


def test_crops_follow_from_seed_epoch_and_draw(archive_root):
    options = {"prefer_buildings": 0.5}
    first, again = (first_crops(archive_root, Radar(), **options) for _ in range(2))
    other = first_crops(archive_root, Radar(), seed=1, **options)
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert not torch.equal(one["image"], three["image"])


def test_flips():
    drawn = {draw_position(Radar(), seeded(seed)) for seed in range(40)}
    assert drawn == {(False, 0), (True, 0)}
    image = torch.arange(6.0).view(1, 2, 3)
    both = Radar(flip_vertical=True)
    results = {str(apply_position(image, draw_position(both, seeded(seed)))) for seed in range(60)}
    assert results == {str(image), str(image.flip(-1)), str(image.flip(-2)), str(image.flip(-1, -2))}
    assert {draw_position(Radar(flip=False), seeded(seed)) for seed in range(40)} == {(False, 0)}


def test_a_fraction_of_the_crops_is_scaled_and_rotated():
    for fraction, few, many in ((0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)):
        warps = [draw_warp(Radar(warp_probability=fraction), seeded(seed)) for seed in range(200)]
        assert few <= sum(not warp.is_identity for warp in warps) <= many
    assert all(warp.is_identity for warp in (draw_warp(Radar(**STILL), seeded(seed)) for seed in range(9)))


# --- decibels


def changed(augmentation, image, seed=0, mean=30.0):
    means = torch.full((len(image), 1, 1), mean)
    return change_decibels(image.clone(), means, augmentation, seeded(seed))


def test_gain_and_offsets_add_decibels():
    image = torch.randn(3, 20, 20) * 8 + 30
    gains = []
    for seed in range(30):
        added = changed(Radar(**QUIET | {"gain": 1.5}), image, seed) - image
        assert added.std() < 1e-5
        gains.append(float(added.mean()))
    assert -1.5 <= min(gains) < -1
    assert 1 < max(gains) <= 1.5
    by_band = (changed(Radar(**QUIET | {"band_offset": 2.0}), image) - image).flatten(1)
    assert by_band.std(dim=1).max() < 1e-5
    assert by_band.mean(dim=1).std() > 0.1


def test_contrast_stretches_about_the_mean_of_the_training_tiles():
    image = torch.tensor([[[20.0, 30.0, 35.0]]])
    factors = []
    for seed in range(30):
        low, middle, high = changed(Radar(**QUIET, contrast=0.2), image, seed)[0, 0].tolist()
        assert middle == pytest.approx(30)
        assert low - 30 == pytest.approx(-2 * (high - 30), rel=1e-4)
        factors.append((30 - low) / 10)
    assert 0.8 <= min(factors) < 0.9
    assert 1.1 < max(factors) <= 1.2


@pytest.mark.parametrize("looks", [1.0, 4.0, 20.0])
def test_speckle_has_mean_1_and_variance_1_over_l(looks):
    power = 10 ** (draw_speckle(looks, (4, 300, 300), seeded(), torch.device("cpu")).double() / 10)
    assert power.mean() == pytest.approx(1, abs=5 / math.sqrt(power.numel() * looks))
    assert power.var() == pytest.approx(1 / looks, rel=0.02)
    bands = power.flatten(1)
    assert np.abs(np.corrcoef(bands) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(bands[:, :-1].ravel(), bands[:, 1:].ravel())[0, 1]) < 0.02
    image = torch.zeros(4, 300, 300)
    assert (10 ** (changed(Radar(**QUIET | {"speckle": looks}), image) / 10)).var() == pytest.approx(
        1 / looks, rel=0.02
    )


def test_only_decibels_are_changed(archive_root):
    """The same draws on an optical product change its geometry alone."""
    loud = {"gain": 30.0, "band_offset": 30.0}
    for product, is_equal in (("PS-RGB", True), ("SAR-Intensity", False)):
        pairs = (first_crops(archive_root, Radar(**more), product=product) for more in (loud, QUIET))
        observed = [(one, two) for one, two in zip(*pairs, strict=True) if one["valid"].any()]
        assert len(observed) > 2
        assert all(torch.equal(one["image"], two["image"]) == is_equal for one, two in observed)


def test_decibels_are_changed_before_they_are_normalised(archive_root):
    """A gain of g dB is g / std of each band in the sample, and 0 on nodata."""

    class Gain(Augmentation):
        def decibels(self, image, mean, rng):
            return image + 2

    data = datamodule(archive_root, Gain())
    std = torch.tensor(data.statistics.std)[:, None, None]
    plain = first_crops(archive_root, Augmentation())
    for one, two in zip(first_crops(archive_root, Gain()), plain, strict=True):
        expected = torch.where(one["valid"], 2 / std, 0)
        torch.testing.assert_close(one["image"] - two["image"], expected, rtol=0, atol=1e-5)


# --- crops that prefer buildings


def test_windows_contain_a_pixel_of_a_building():
    instances = np.zeros((120, 90), np.int32)
    instances[3:6, 80:84] = 7
    instances[100:104, 2:5] = 9
    valid = np.ones(instances.shape, bool)
    rng = seeded()
    windows = [instances[crop_window(valid, 32, rng, instances)] for _ in range(60)]
    assert all(window.shape == (32, 32) for window in windows)
    assert {int(window.max()) for window in windows} == {7, 9}
    assert {tuple(np.argwhere(window)[0]) for window in windows if window.max() == 9}.__len__() > 10  # not in one place
    empty = np.zeros_like(instances)
    assert crop_window(valid, 32, seeded(5), empty) == crop_window(valid, 32, seeded(5))
    assert instances[crop_window(valid, 200, rng, instances)].shape == instances.shape


def test_the_option_is_a_fraction_of_the_crops(archive_root):
    tiles = datamodule(archive_root, Augmentation()).train_tiles
    built = [bool(tiles[index]["mask"].any()) for index in range(len(tiles))]
    found = {}
    for fraction in (0.0, 0.5, 1.0):
        crops = first_crops(archive_root, Augmentation(), 60, crop=16, crops_per_tile=9, prefer_buildings=fraction)
        found[fraction] = np.mean([bool(crop["mask"].any()) for crop in crops if built[crop["index"]]])
    assert found[0.0] < found[0.5] < found[1.0] == 1


def test_crops_that_prefer_buildings_are_of_tiles_in_proportion_to_their_buildings(archive_root):
    tiles = datamodule(archive_root, Augmentation()).train_tiles
    buildings = np.array([len(tiles.labels(index)) for index in range(len(tiles))])
    assert buildings.min() < buildings.max() / 2
    crops = CropDataset(tiles, 16, 50, Augmentation(), seed=3, prefer_buildings=0.5)
    drawn = np.bincount([crops.draw_tile(2, draw)[0] for draw in range(len(crops))], minlength=len(tiles))
    expected = len(crops) * (0.5 / len(tiles) + 0.5 * crops.buildings / crops.buildings.sum())
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected.max())
    assert np.corrcoef(drawn, buildings)[0, 1] > 0.8
    evenly = CropDataset(tiles, 16, 50, Augmentation(), seed=3)
    assert set(np.bincount([evenly.draw_tile(2, draw)[0] for draw in range(len(evenly))])) == {50}


# --- wrong input


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", [0.0, 1.0]),
        ("scale", [-1.0, 1.0]),
        ("scale", [1.25, 0.8]),
        ("scale", [1.0]),
        ("scale", [0.8, 1.0, 1.2]),
        ("scale", [0.8, math.nan]),
        ("scale", [0.8, math.inf]),
        ("scale", 1.2),
        ("rotation", 45.1),
        ("rotation", -5.0),
        ("rotation", math.nan),
        ("warp_probability", 1.5),
        ("gain", -1.0),
        ("gain", math.inf),
        ("gain", math.nan),
        ("band_offset", -0.1),
        ("contrast", -0.1),
        ("speckle", 0.0),
        ("speckle", -3.0),
        ("speckle", math.nan),
        ("flip", "sometimes"),
    ],
)
def test_values_that_are_none(key, value):
    with user_error("invalid_value", f"augmentation.{key}") as caught:
        validate_arguments(Radar, {key: value}, "config", "augmentation.", strict=True)
    assert "\n" not in str(caught.value)


def test_values_that_are_some():
    limits = {"scale": [0.5, 2.0], "rotation": 45, "gain": 0, "speckle": None, "contrast": 1.0, "flip": False}
    validate_arguments(Radar, limits, "config", "augmentation.", strict=True)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_fraction_that_is_none(value):
    with user_error("invalid_value", "data.prefer_buildings"):
        validate_arguments(TileDataModule, {"prefer_buildings": value}, "config", "data.", strict=True)


@pytest.mark.parametrize("warp", [None, (1.0, 5.0), Warp(0.0), Warp(-1.0), Warp(math.nan), Warp(1.0, math.inf)])
def test_a_warp_that_is_none(warp):
    class Wrong(Augmentation):
        def warp(self, rng):
            return warp

    with user_error("invalid_value", "augmentation._target_"):
        draw_warp(Wrong(), seeded())


@pytest.mark.parametrize("result", [None, 3.0, torch.ones(1, 2, 2)])
def test_decibels_that_are_none(result):
    class Wrong(Augmentation):
        def decibels(self, image, mean, rng):
            return result

    with user_error("invalid_value", "augmentation._target_") as caught:
        changed(Wrong(), torch.ones(1, 4, 4))
    assert "\n" not in str(caught.value)
