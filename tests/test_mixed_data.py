"""Train on two data sets at once: their crops are drawn by weight, and each is normalised by its own statistics."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import assert_fails, read_metrics
from helpers.errors import user_error
from helpers.ranks import on_ranks
from helpers.resuming import assert_same_run, log_of
from helpers.stopping import run_and_stop
from helpers.towns import NORTH, SIZE, WEST, write_town
from helpers.training import make_segmenter, make_trainer

from sn6.data.datamodule import TileDataModule
from sn6.data.folds import bounds_of, overlaps_any
from sn6.datasets.folder import Folder
from sn6.errors import UserError
from sn6.models.unet import UNet

ELSEWHERE = (500_000.0, 5_500_000.0)
SHARED = {"partition": "blocks", "orient": False, "crop": 32, "batch_size": 4, "num_workers": 0, "seed": 3}


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    """Two towns in different UTM zones, the second one brighter by 40 dB and with fewer images."""
    folder = tmp_path_factory.mktemp("towns")
    write_town(folder / "near", images=10)
    write_town(folder / "far", "EPSG:25832", images=6, level=60.0, origin=ELSEWHERE)
    return folder


def module_of(town: Path, **options) -> TileDataModule:
    """Return the data of a town."""
    data_set = Folder(images=str(town / "images"), labels=str(town / "buildings.gpkg"), cache=str(town))
    return TileDataModule(data_set, **SHARED | options)


def mixed(towns: Path, weight=1.0, names=("far",), own=None, **options) -> TileDataModule:
    """Return the data of the first town with further data."""
    further = {name: (module_of(towns / name, **options | (own or {})), weight) for name in names}
    return module_of(towns / "near", further=further, **options)


def batches_of(data: TileDataModule, epoch=0):
    data.setup()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def towns_of(batches):
    """Return how many crops are of each town."""
    return Counter(name.partition("_")[0] for batch in batches for name in batch["image_id"])


@pytest.mark.parametrize(("weight", "far"), [(1.0, 8), (0.5, 4), (2.0, 16), (0.01, 1)])
def test_crops_are_drawn_by_weight(towns, weight, far):
    data = mixed(towns, weight)
    data.setup()
    assert data.draws == [8, far]  # eight of ten images train
    drawn = [draw for _, draw in data.train_dataloader().sampler]
    assert len(drawn) == -(-(8 + far) // 4) * 4
    assert set(drawn) == set(range(8 + far))
    assert data.batches_per_epoch == len(batches_of(data))
    if (8 + far) % 4 == 0:
        assert towns_of(batches_of(data)) == {"near": 8, "far": far}


def test_crops_of_the_data_are_those_without_further_data(towns):
    """An experiment that adds data changes nothing else."""

    def crops(data):
        pairs = [
            (name, image)
            for batch in batches_of(data, epoch=2)
            for name, image in zip(batch["image_id"], batch["image"], strict=True)
        ]
        return {name: image for name, image in pairs if name.startswith("near")}

    alone, with_far = crops(module_of(towns / "near")), crops(mixed(towns))
    assert alone.keys() == with_far.keys()
    assert all(torch.equal(alone[name], with_far[name]) for name in alone)


def test_each_is_normalised_by_its_own_training_tiles(towns):
    images: dict[str, list[torch.Tensor]] = {"near": [], "far": []}
    for epoch in range(4):
        for batch in batches_of(mixed(towns), epoch):
            for name, image in zip(batch["image_id"], batch["image"], strict=True):
                images[name.partition("_")[0]].append(image)
    for crops in images.values():
        assert float(torch.stack(crops).mean()) == pytest.approx(0, abs=0.25)
        assert float(torch.stack(crops).std()) == pytest.approx(1, abs=0.1)
    data = mixed(towns)
    data.setup()
    (far, _) = data.further["far"]
    assert far.statistics.mean[0] - data.statistics.mean[0] == pytest.approx(40, abs=0.5)


def test_all_tiles_of_further_data_are_used_in_turn(towns):
    data = mixed(towns, weight=0.25)
    data.setup()
    used = Counter(
        name for epoch in range(10) for batch in batches_of(data, epoch) for name in batch["image_id"] if "far" in name
    )
    trained = {tile.image_id for tile in data.further["far"][0].fold.train}
    assert set(used) == trained
    assert max(used.values()) - min(used.values()) <= 2  # the last batch repeats some crops


def test_mask_and_validity_stay_with_their_image(towns):
    """Buildings are brighter by five standard deviations of the ground."""
    for batch in batches_of(mixed(towns)):
        assert batch["valid"].all()
        for image, mask in zip(batch["image"], batch["mask"] > 0, strict=True):
            if mask.any() and (~mask).any():
                assert image[mask].mean() - image[~mask].mean() > 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_resumes_within_an_epoch(towns, workers):
    data = mixed(towns, num_workers=workers)
    expected = batches_of(data, epoch=1)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    loader.load_state_dict({"epoch": 1, "given": 2})
    rest = list(loader)
    assert len(rest) == len(expected) - 2
    for one, other in zip(rest, expected[2:], strict=True):
        assert one["image_id"] == other["image_id"]
        assert torch.equal(one["image"], other["image"])


def test_a_store_gives_the_same_crops(towns, tmp_path):
    """To within the steps of its decibels."""
    plain, stored = batches_of(mixed(towns)), batches_of(mixed(towns, store="disk", store_root=str(tmp_path)))
    for one, other in zip(plain, stored, strict=True):
        assert one["image_id"] == other["image_id"]
        assert torch.equal(one["mask"], other["mask"])
        torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=1e-3)


def train_some_steps(ranks, towns, folder):
    """Return the weights of a network after six steps of eight crops."""
    torch.manual_seed(0)
    module = make_segmenter(UNet(in_channels=1, classes=1, width=4, depth=2), lr=0.03)
    data = mixed(towns, batch_size=8, crops_per_tile=4)
    trainer = make_trainer(ranks, folder, max_steps=6, limit_val_batches=0, max_epochs=9)
    trainer.fit(module, data)
    return {name: tensor.numpy() for name, tensor in module.network.state_dict().items()}


def test_one_rank_and_two_train_the_same(towns, tmp_path):
    (one,) = on_ranks(train_some_steps, 1, towns, tmp_path)
    for two in on_ranks(train_some_steps, 2, towns, tmp_path):
        for name, weights in one.items():
            np.testing.assert_allclose(two[name], weights, rtol=0, atol=4e-6, err_msg=name)
    torch.manual_seed(0)
    initial = UNet(in_channels=1, classes=1, width=4, depth=2).state_dict()
    assert any(np.abs(one[name] - initial[name].numpy()).max() > 1e-3 for name in one)


def test_ground_that_validates_does_not_train_in_another_data_set(towns, tmp_path):
    write_town(tmp_path / "again")
    zone = module_of(towns / "near")
    moved = Folder(images=str(tmp_path / "again/images"), labels=str(tmp_path / "again/buildings.gpkg"))
    data = module_of(towns / "near", further={"again": (TileDataModule(moved, **SHARED | {"fold": 3}), 1.0)})
    data.setup()
    zone.setup()
    held_out = bounds_of([*data.fold.validation, *data.fold.test])
    kept = data.further["again"][0].fold.train
    assert [tile.image_id for tile in data.fold.train] == [tile.image_id for tile in zone.fold.train]
    assert not overlaps_any(bounds_of(kept), held_out).any()
    assert 0 < len(kept) < 8


def test_ground_is_compared_across_zones(towns, tmp_path):
    """In the neighbouring zone the same ground is rotated by some degrees."""
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:25833", "EPSG:25832", [WEST], [NORTH])
    write_town(tmp_path / "tilted", "EPSG:25832", origin=(x, y))
    other = module_of(tmp_path / "tilted", fold=4)
    data = module_of(towns / "near", further={"tilted": (other, 1.0)})
    data.setup()
    validated = {tile.image_id.rpartition("_")[2] for tile in data.fold.validation}
    trained = {tile.image_id.rpartition("_")[2] for tile in other.fold.train}
    assert trained
    assert not validated & trained  # image k is on the ground of image k


def test_nothing_is_left_to_train_with(towns, tmp_path):
    """The first two of ten images are one of the five blocks."""
    town = write_town(tmp_path / "two", images=2)
    ground = Folder(images=str(town / "images"), labels=str(town / "buildings.gpkg"), tile_size=SIZE // 2)
    errors = []
    for fold in range(5):
        data = module_of(towns / "near", fold=fold, further={"two": (TileDataModule(ground, **SHARED), 1.0)})
        try:
            data.setup()
        except UserError as error:
            errors.append((error.kind, error.key, {tile.image_id for tile in data.fold.validation}))
    assert errors == [("conflict", "data.further.two", {"near_0", "near_1"})]


def test_samples_of_other_shapes_are_refused(towns, tmp_path):
    two_bands = module_of(write_town(tmp_path / "two", bands=2))
    coarse = module_of(write_town(tmp_path / "coarse", pixel_size=1.0))
    with user_error("conflict", key="data.further.two.bands", value=[1, 2]):
        module_of(towns / "near", further={"two": (two_bands, 1.0)})
    with user_error("conflict", key="data.further.coarse.pixel_size", value=1.0):
        module_of(towns / "near", further={"coarse": (coarse, 1.0)})
    one_of_two = module_of(tmp_path / "two", bands=[2])
    module_of(towns / "near", further={"two": (one_of_two, 1.0)}).setup()


def test_a_checkpoint_of_other_pixels_is_refused(towns):
    data = mixed(towns)
    data.setup()
    state = data.state_dict()
    data.load_state_dict(state)
    state["further"]["far"]["mean"] = [0.0]
    with user_error("conflict", key="data.further.far.images"):
        data.load_state_dict(state)


# --- by the command line


def overrides(towns):
    near, far = towns / "near", towns / "far"
    return [
        "data=folder",
        *(f"data.images={near}/images", f"data.labels={near}/buildings.gpkg", f"data.cache={near}"),
        "+data@data.further.far=folder",
        *(f"data.further.far.images={far}/images", f"data.further.far.labels={far}/buildings.gpkg"),
        *(f"data.further.far.cache={far}", "+data.further.far.weight=0.5"),
        *("model=unet", "model.width=4", "model.depth=2", "data.crop=32", "data.batch_size=2", "data.num_workers=1"),
        *("trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accelerator=cpu"),
        *("trainer.precision=32-true", "trainer.log_every_n_steps=1", "callbacks.image_logging.tiles=0"),
        *(
            "callbacks.resume_point.every_n_steps=1",
            "callbacks.polygon_f1.curve=[]",
            "+trainer.enable_progress_bar=false",
        ),
        *("~callbacks.progress_bar", "+callbacks.stop._target_=helpers.stopping.StopAt", "name=it"),
    ]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(towns, tmp_path):
    for name, stop in (("whole", None), ("killed", "SIGKILL it 1 2")):
        (tmp_path / name).mkdir()
        assert run_and_stop(overrides(towns), tmp_path / name, stop) == (-9 if stop else 0), log_of(tmp_path / name)
    assert run_and_stop(overrides(towns), tmp_path / "killed") == 0, log_of(tmp_path / "killed")
    assert_same_run(tmp_path / "killed/outputs/it", tmp_path / "whole/outputs/it")
    assert "far, 5 tiles, weight 0.5" in log_of(tmp_path / "whole")
    metrics = read_metrics(tmp_path / "whole/outputs/it")
    assert metrics["data"]["further"] == {"far": {"tiles": 5, "weight": 0.5}}


@pytest.mark.parametrize(
    ("override", "kind", "key"),
    [
        ("+data.further.far.weight=0", "invalid_value", "data.further.far.weight"),
        ("+data.further.far.weight=true", "invalid_value", "data.further.far.weight"),
        ("+data.further.far.crop=64", "unknown_key", "data.further.far.crop"),
        ("+data.further.other.images=a", "missing_value", "data.further.other.dataset"),
        ("+data.further.far.tiles=64", "unknown_key", "data.further.far.tiles"),
        ("data.further.far.units=loud", "invalid_value", "data.further.far.units"),
    ],
)
def test_a_wrong_key_is_one_line(sn6_run, towns, override, kind, key):
    lines = [line for line in overrides(towns) if "weight" not in line]
    assert_fails(sn6_run(*lines, override), kind, key)
