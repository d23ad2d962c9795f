"""Crops from a store are equal to those from the GeoTIFFs, on every device."""

import shutil
from itertools import islice

import numpy as np
import pytest
import rasterio
import torch
from helpers.handmade import folder
from torch.utils.data import default_collate

from sn6.data.augment import Dihedral, FlipLR
from sn6.data.datamodule import TileDataModule
from sn6.data.dataset import CropDataset
from sn6.data.radar import Radar
from sn6.data.stored_crops import StoredCrops, free_memory
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.targets.boundary import BoundaryWeights

TARGETS = {"weight": BoundaryWeights(w0=10.0, sigma=2.5)}
PRECISION = 1 / 1024  # decibels, as documented
CASES = {
    "SAR": {"product": "SAR-Intensity", "augmentation": FlipLR()},
    "SAR not oriented": {"product": "SAR-Intensity", "orient": False, "nodata": "as_is", "bands": [4, 1]},
    "optical": {"product": "PS-RGB", "augmentation": Dihedral()},
    "optical of 1 m": {"product": "RGBNIR", "augmentation": Dihedral(), "nodata": "as_is"},
    "scaled SAR": {"product": "SAR-Intensity", "augmentation": Radar(), "prefer_buildings": 0.5},
    "scaled crops larger than the tiles": {
        "product": "SAR-Intensity",
        "augmentation": Radar(flip_vertical=True, scale=(0.5, 2.0), rotation=45.0, warp_probability=0.8, contrast=0.2),
        "crop": 100,
        "nodata": "as_is",
    },
    "scaled optical": {"product": "PS-RGB", "augmentation": Radar(), "bands": [3, 1]},
    "crops larger than the tiles": {"product": "PAN", "augmentation": Dihedral(), "crop": 150, "nodata": "as_is"},
}


@pytest.fixture(scope="module")
def fine_root(archive_root, tmp_path_factory):
    """Copy the archive, with decibels that are not multiples of 1/64 as those of the simulator are."""
    root = shutil.copytree(archive_root, tmp_path_factory.mktemp("fine") / "root")
    rng = np.random.default_rng(0)
    for path in (folder(root) / "SAR-Intensity").glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            pixels = file.read()
            file.write(np.where(pixels > 1, pixels + rng.uniform(0, 1 / 64, pixels.shape), pixels).astype(np.float32))
    return root


def datamodule(root, store, **more):
    options = {"product": "SAR-Intensity", "crop": 48, "batch_size": 4, "num_workers": 0} | more
    data = TileDataModule(SpaceNet6(root), store=store, targets=TARGETS, **options)
    data.setup()
    return data


def assert_same_batch(batch, expected, image_tolerance=0.0, weight_tolerance=0.0):
    """Assert that two batches are equal, their images up to `image_tolerance`, their weights to a relative one."""
    assert batch.keys() == expected.keys() == {"image", "mask", "valid", "weight", "image_id", "index"}
    assert batch["image_id"] == expected["image_id"]
    for key in ("mask", "valid", "weight", "index"):
        assert batch[key].dtype == expected[key].dtype
    for key in ("mask", "valid", "index"):
        assert torch.equal(batch[key], expected[key]), key
    torch.testing.assert_close(batch["weight"], expected["weight"], rtol=weight_tolerance, atol=0)
    assert batch["image"].dtype == torch.float32
    torch.testing.assert_close(batch["image"], expected["image"], rtol=0, atol=image_tolerance)


@pytest.mark.parametrize("case", CASES)
def test_batches_are_equal_to_those_of_the_geotiffs(fine_root, tmp_path, case):
    geotiffs = datamodule(fine_root, None, **CASES[case])
    disk, device = (datamodule(fine_root, kind, store_root=str(tmp_path), **CASES[case]) for kind in ("disk", "device"))
    assert disk.statistics == geotiffs.statistics
    rounding = 0.0
    if CASES[case]["product"] == "SAR-Intensity":
        rounding = PRECISION / min(disk.statistics.std) * 1.21  # contrast increases it by up to a fifth
    loaders = [data.train_dataloader() for data in (geotiffs, disk, device)]
    for loader in loaders:
        loader.sampler.set_epoch(3)
    is_different = False
    options = (disk.crop, disk.crops_per_tile, disk.augmentation, disk.seed, disk.prefer_buildings)
    one_by_one = CropDataset(disk.train_tiles, *options)
    draws = iter(loaders[0].sampler)
    for expected, batch, resident in zip(*loaders, strict=True):
        assert_same_batch(batch, expected, rounding)
        assert_same_batch(batch, default_collate([one_by_one[draw] for draw in islice(draws, len(batch["index"]))]))
        assert_same_batch(resident, batch)
        is_different |= not torch.equal(batch["image"], expected["image"])
    assert is_different == (rounding > 0)
    for expected, batch in zip(geotiffs.val_dataloader(), disk.val_dataloader(), strict=True):
        assert_same_batch(batch, expected, rounding)


def test_workers_read_the_store(archive_root, tmp_path):
    single, workers = (datamodule(archive_root, "disk", store_root=str(tmp_path), num_workers=n) for n in (0, 1))
    for batch, expected in zip(workers.train_dataloader(), single.train_dataloader(), strict=True):
        assert_same_batch(batch, expected)


def test_a_batch_does_not_change_while_it_is_referenced(archive_root, tmp_path):
    loader = datamodule(archive_root, "disk", store_root=str(tmp_path)).train_dataloader()
    batches = iter(loader)
    first = next(batches)
    copy = {key: value.clone() for key, value in first.items() if isinstance(value, torch.Tensor)}
    view, pixels = first.pop("image")[1, 2], copy.pop("image")[1, 2]  # the view is a reference, too
    list(batches)
    assert torch.equal(view, pixels)
    assert all(torch.equal(first[key], copy[key]) for key in copy)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("is_resident", [False, True])
def test_crops_on_a_gpu_are_equal_to_those_on_the_cpu(fine_root, tmp_path, case, is_resident):
    data = datamodule(fine_root, "disk", store_root=str(tmp_path), **CASES[case])
    loader = data.train_dataloader()
    on_gpu = StoredCrops(loader.dataset.crops, data.store, torch.device("cuda"))
    if is_resident:
        on_gpu.load_to_device()
    draws = iter(loader.sampler)
    for expected in loader:
        batch = on_gpu.__getitems__(list(islice(draws, len(expected["index"]))))
        assert all(value.is_cuda for value in batch.values() if isinstance(value, torch.Tensor))
        on_cpu = {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        assert_same_batch(on_cpu, expected, 1e-5, 1e-5)


def test_no_geotiff_is_read_for_a_crop(archive_root, tmp_path):
    root = shutil.copytree(archive_root, tmp_path / "root", ignore=shutil.ignore_patterns(".sn6"))
    data = datamodule(root, "disk")
    shutil.rmtree(folder(root) / "SAR-Intensity")
    assert len(list(data.train_dataloader())) == data.batches_per_epoch


@pytest.mark.parametrize("augmentation", [FlipLR(), Radar()])
@pytest.mark.parametrize("store", [None, "device"])
def test_a_loader_resumes_in_the_middle_of_an_epoch(archive_root, tmp_path, store, augmentation):
    options = {"augmentation": augmentation, "prefer_buildings": 0.5}
    data = datamodule(archive_root, store, store_root=str(tmp_path), **options)
    batches = list(data.train_dataloader())
    loader = data.train_dataloader()
    interrupted = iter(loader)
    next(interrupted)
    next(interrupted)
    resumed = data.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = list(resumed)
    assert len(rest) == len(batches) - 2
    for batch, expected in zip(rest, batches[2:], strict=True):
        assert_same_batch(batch, expected)


def test_without_enough_device_memory_crops_are_read_from_disk(archive_root, tmp_path, monkeypatch, caplog):
    assert free_memory(torch.device("cpu")) > 2**28
    monkeypatch.setattr("sn6.data.stored_crops.free_memory", lambda device: 10**6)
    device = datamodule(archive_root, "device", store_root=str(tmp_path)).train_dataloader()
    disk = datamodule(archive_root, "disk", store_root=str(tmp_path)).train_dataloader()
    for batch, expected in zip(device, disk, strict=True):
        assert_same_batch(batch, expected)
    assert not device.dataset.is_resident
    assert [record.levelname for record in caplog.records if record.name == "sn6.data.stored_crops"] == ["WARNING"]
