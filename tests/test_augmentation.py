"""The augmentation of a run: which one it has, and one of the user's own from GeoTIFFs and from a store."""

import shutil
import sys

import numpy as np
import pytest
import torch
from helpers.commands import assert_fails, small_run
from helpers.errors import user_error
from hydra import compose, initialize_config_dir

from sn6.config.composition import CONF, VERSION_BASE, to_plain
from sn6.data.augment import Augmentation, Dihedral, FlipLR, apply_position, change_pixels, draw_position
from sn6.data.datamodule import TileDataModule
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.training.stages import stage_configs

OWN = """
import torch

from sn6.data.augment import Augmentation, FlipLR


class Noise(FlipLR):
    def __init__(self, std: float = 0.1):
        self.std = std

    def pixels(self, sample, rng):
        noise = torch.from_numpy(rng.normal(0, self.std, sample["image"].shape))
        return sample | {"image": sample["image"] + noise.to(sample["image"])}


class Cutout(Augmentation):
    def pixels(self, sample, rng):
        top, left = rng.integers(20, size=2)
        sample["valid"][:, top : top + 16, left : left + 16] = False
        sample["image"] += 1
        return sample


class Nothing(Augmentation):
    def pixels(self, sample, rng):
        sample["image"] *= 2
"""
NAMES = {"none": Augmentation, "flip_lr": FlipLR, "dihedral": Dihedral}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module and the folder of its config groups, as a user does; return the module."""
    (tmp_path / "own_augmentations.py").write_text(OWN)
    (tmp_path / "my_conf/augmentation").mkdir(parents=True)
    (tmp_path / "my_conf/augmentation/noise.yaml").write_text("_target_: own_augmentations.Noise\nstd: 0.2\n")
    (tmp_path / "my_conf/augmentation/nothing.yaml").write_text("_target_: own_augmentations.Nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("own_augmentations")
    del sys.modules["own_augmentations"]


# --- which one


def target_of(name):
    return f"sn6.data.augment.{NAMES[name].__name__}"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "flip_lr"),
        (["data=eo"], "dihedral"),
        (["augmentation=none"], "none"),
        (["data=eo", "augmentation=none"], "none"),
        (["augmentation=flip_lr", "data=eo"], "flip_lr"),
        (["experiment=baseline_weights"], "flip_lr"),
    ],
)
def test_optical_tiles_are_also_rotated_unless_the_command_line_says_otherwise(overrides, name):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", ["name=a", "folder=f", "run_folder=f", *overrides])
    assert config.augmentation == {"_target_": target_of(name)}


@pytest.mark.parametrize(
    ("overrides", "eo", "sar"),
    [
        ([], "dihedral", "flip_lr"),
        (["augmentation=none"], "none", "none"),
        (["stages={eo: ['data=eo', 'augmentation=flip_lr'], sar: ['augmentation=none']}"], "flip_lr", "none"),
    ],
)
def test_each_stage_has_the_augmentation_of_its_tiles(overrides, eo, sar):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        options = ["name=a", "folder=f", "run_folder=f"]
        values = to_plain(compose("config", ["experiment=quickstart", *options, *overrides]))
        stages = stage_configs(values, ["experiment=quickstart", *overrides])
    assert stages["eo"]["augmentation"] == {"_target_": target_of(eo)}
    assert stages["sar"]["augmentation"] == {"_target_": target_of(sar)}


def test_the_classes_draw_as_the_names_did():
    """The crops of earlier runs: the flip is drawn first, then the rotation, nothing without augmentation."""
    for seed in range(20):
        draws, plain = np.random.default_rng(seed), np.random.default_rng(seed)
        assert draw_position(Augmentation(), draws) == (False, 0)
        assert draw_position(FlipLR(), draws) == (bool(plain.integers(2)), 0)
        assert draw_position(Dihedral(), draws) == (bool(plain.integers(2)), int(plain.integers(4)))


# --- the user's own


def datamodule(root, store, augmentation, **more):
    options = {"product": "PS-RGB", "crop": 48, "batch_size": 4, "num_workers": 0, "seed": 5} | more
    data = TileDataModule(SpaceNet6(root), store=store, augmentation=augmentation, **options)
    data.setup()
    return data


def epoch(data, number=2):
    """Return the samples of an epoch, by image id and the draw's place in it."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


@pytest.mark.parametrize("nodata", ["zero", "as_is"])
@pytest.mark.parametrize("name", ["Noise", "Cutout"])
def test_pixel_changes_are_equal_from_geotiffs_workers_and_the_store(archive_root, tmp_path, own, name, nodata):
    augmentation = getattr(own, name)()
    geotiffs = epoch(datamodule(archive_root, None, augmentation, nodata=nodata))
    others = [
        epoch(datamodule(archive_root, None, augmentation, nodata=nodata)),
        epoch(datamodule(archive_root, None, augmentation, nodata=nodata, num_workers=1)),
        epoch(datamodule(archive_root, "disk", augmentation, nodata=nodata, store_root=str(tmp_path))),
        epoch(datamodule(archive_root, "device", augmentation, nodata=nodata, store_root=str(tmp_path))),
    ]
    for batches in others:
        for batch, expected in zip(batches, geotiffs, strict=True):
            assert batch.keys() == expected.keys()
            for key in ("image", "mask", "valid"):
                assert batch[key].dtype == expected[key].dtype
                assert torch.equal(batch[key], expected[key]), key
    next_epoch = epoch(datamodule(archive_root, None, augmentation, nodata=nodata), 3)
    assert not torch.equal(next_epoch[0]["image"], geotiffs[0]["image"])


def test_pixel_changes_come_after_position_and_normalisation(archive_root, own):
    """Compare with the same crops without noise, to which it is added from the same generator."""
    plain, noisy = (
        datamodule(archive_root, None, one).train_dataloader().dataset for one in (FlipLR(), own.Noise(std=0.2))
    )
    noise = []
    for draw in range(8):
        one, two = plain[1, draw], noisy[1, draw]
        assert torch.equal(one["mask"], two["mask"])
        noise.append((two["image"] - one["image"])[one["valid"].expand_as(one["image"])])
    assert torch.cat(noise).std() == pytest.approx(0.2, rel=0.03)
    assert torch.cat(noise).mean() == pytest.approx(0, abs=0.01)


def test_nodata_stays_0(archive_root, tmp_path, own):
    invalid = 0
    for store in (None, "disk"):
        data = datamodule(archive_root, store, own.Noise(), product="SAR-Intensity", store_root=str(tmp_path))
        for batch in epoch(data):
            outside = ~batch["valid"].expand_as(batch["image"])
            assert (batch["image"][outside] == 0).all()
            invalid += int(outside.sum())
    assert invalid > 0
    sample = {"image": torch.ones(1, 2, 2), "valid": torch.tensor([[[True, False], [True, True]]])}
    rng = np.random.default_rng(0)
    assert change_pixels(own.Noise(), sample, rng, "zero")["image"][0, 0, 1] == 0
    assert change_pixels(own.Noise(), sample, rng, "as_is")["image"][0, 0, 1] != 0


def test_an_augmentation_of_the_users_folder(sn6_run, archive_root, own, tmp_path):
    run = [*small_run("unet"), "model.depth=2", f"data.root={archive_root}", "--config-dir", str(tmp_path / "my_conf")]
    done = sn6_run(*run, "augmentation=noise")
    assert done.status == 0, done.err
    assert_fails(sn6_run(*run, "augmentation=noise", "augmentation.std=0.3"), "conflict")  # it may not change
    assert_fails(sn6_run(*run, "name=other", "augmentation=nothing"), "invalid_value", "augmentation._target_")
    shutil.rmtree(tmp_path / "outputs/other")
    wrong = sn6_run(*run, "name=other", "augmentation=none", "augmentation._target_=torch.nn.ReLU")
    assert_fails(wrong, "invalid_value", "augmentation._target_", "torch.nn.ReLU")


@pytest.mark.parametrize(
    "pixels",
    [
        lambda sample: None,
        lambda sample: sample["image"],
        lambda sample: sample | {"image": sample["image"][:, ::2]},
        lambda sample: sample | {"image": sample["image"].numpy()},
        lambda sample: {"image": sample["image"]},
        lambda sample: sample | {"more": sample["image"]},
    ],
    ids=["None", "a tensor", "another shape", "an array", "without a key", "with another key"],
)
def test_pixels_that_are_no_sample(pixels):
    class Wrong(Augmentation):
        def pixels(self, sample, rng):
            return pixels(sample)

    sample = {"image": torch.ones(1, 4, 4), "valid": torch.ones(1, 4, 4, dtype=torch.bool)}
    with user_error("invalid_value", "augmentation._target_") as caught:
        change_pixels(Wrong(), sample, np.random.default_rng(0), "zero")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("position", [None, True, (True, 4), (True, 1, 2), (True, 0.5)])
def test_a_position_that_is_none(position):
    class Wrong(Augmentation):
        def position(self, rng):
            return position

    with user_error("invalid_value", "augmentation._target_"):
        draw_position(Wrong(), np.random.default_rng(0))


@pytest.mark.parametrize(("augmentation", "positions"), [(Augmentation(), 1), (FlipLR(), 2), (Dihedral(), 8)])
def test_positions_flip_and_rotate(augmentation, positions):
    image = np.arange(9.0).reshape(1, 3, 3)
    drawn = set()
    for seed in range(200):
        flip, quarters = draw_position(augmentation, np.random.default_rng(seed))
        result = apply_position(torch.from_numpy(image), (flip, quarters)).numpy()
        assert np.array_equal(result, np.rot90(image[..., ::-1] if flip else image, quarters, axes=(1, 2)))
        drawn.add(result.tobytes())
    assert len(drawn) == positions
    if isinstance(augmentation, FlipLR):  # never upside down, which would move the sensor to the other side
        assert drawn == {image.tobytes(), np.ascontiguousarray(image[..., ::-1]).tobytes()}
