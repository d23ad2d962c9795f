"""A store gives what the GeoTIFFs give, is made of them once, and is made anew where they changed."""

import os
import shutil
import signal
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from helpers.commands import small_run
from helpers.handmade import folder, speckle, write_labels, write_orientations, write_tile
from helpers.ranks import on_ranks
from helpers.stopping import SERVER, run_and_stop
from torch.utils.data import default_collate

from sn6.data.datamodule import TileDataModule
from sn6.data.dataset import CropDataset
from sn6.data.source import Source
from sn6.data.store import Store, store_folder
from sn6.data.store_layers import encode, smallest_dtype
from sn6.data.stored_crops import StoredCrops, free_memory
from sn6.datasets.archive import Archive
from sn6.errors import UserError
from sn6.targets.boundary import PixelWeights

WEIGHTS = PixelWeights(w0=10.0, sigma=5.0)
SAR = Source("SAR-Intensity", (1, 2, 3, 4), orient=True, min_area=20.0)
DECIBELS = 1 / 1024  # the store's stated precision
CASES = {
    "radar": {"product": "SAR-Intensity", "augmentation": "flip_lr"},
    "radar as it lies": {"product": "SAR-Intensity", "orient": False, "nodata": "as_is", "bands": [4, 1]},
    "optical": {"product": "PS-RGB", "augmentation": "dihedral"},
    "optical of 1 m": {"product": "RGBNIR", "augmentation": "dihedral", "nodata": "as_is"},
    "crops larger than the tiles": {"product": "PAN", "augmentation": "dihedral", "crop": 150, "nodata": "as_is"},
}


@pytest.fixture
def root(archive_root, tmp_path):
    """A copy of the archive, to have a store beside it; without what runs of other tests left there."""
    return shutil.copytree(archive_root, tmp_path / "root", ignore=shutil.ignore_patterns(".sn6"))


@pytest.fixture(scope="module")
def fine_root(archive_root, tmp_path_factory):
    """A copy whose decibels are no multiples of 1/64, as those of the simulator are."""
    root = shutil.copytree(archive_root, tmp_path_factory.mktemp("fine") / "root")
    rng = np.random.default_rng(0)
    for path in (folder(root) / "SAR-Intensity").glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            pixels = file.read()
            file.write(np.where(pixels > 1, pixels + rng.uniform(0, 1 / 64, pixels.shape), pixels).astype(np.float32))
    return root


@pytest.fixture
def two_tiles(tmp_path):
    """An archive of two radar tiles with three buildings each."""
    for number in (1, 2):
        name = write_tile(tmp_path, "SAR-Intensity", speckle(seed=number), number=number)
    write_rows(tmp_path, name[:-1])
    write_orientations(tmp_path)
    return tmp_path


def write_rows(root, stem, side=12):
    """The labels of both tiles; `side` of the last building of tile 2."""
    rows = ""
    for number in (1, 2):
        for i, (x, y) in enumerate(((4, 30), (18, 30), (40, 40))):
            s = side if (number, i) == (2, 2) else 12
            rows += (
                f'{stem}{number},{i},"POLYGON (({x} {y}, {x + s} {y}, {x + s} {y + s}, {x} {y + s}, {x} {y}))",5,5,1\n'
            )
    write_labels(root, rows)


def store_of(root, pixel_weights=WEIGHTS, source=SAR):
    """A store as a new process has it, and its tiles."""
    archive = Archive(root)
    return Store(archive, source, pixel_weights, store_folder(root, None)), archive.tiles("train", source.product)


def datamodule(root, store, **more):
    options = {"product": "SAR-Intensity", "crop": 48, "batch_size": 4, "num_workers": 0} | more
    data = TileDataModule(root=str(root), store=store, pixel_weights=WEIGHTS, **options)
    data.setup()
    return data


def same_batch(ours, theirs, image):
    """Equal, the image to `image`."""
    assert ours.keys() == theirs.keys() == {"image", "mask", "valid", "weight", "image_id", "index"}
    assert ours["image_id"] == theirs["image_id"]
    for key in ("mask", "valid", "weight", "index"):
        assert ours[key].dtype == theirs[key].dtype
        assert torch.equal(ours[key], theirs[key]), key
    assert ours["image"].dtype == torch.float32
    torch.testing.assert_close(ours["image"], theirs["image"], rtol=0, atol=image)


@pytest.mark.parametrize("case", CASES)
def test_the_same_batches_as_from_the_geotiffs(fine_root, tmp_path, case):
    geotiffs = datamodule(fine_root, None, **CASES[case])
    disk, device = (datamodule(fine_root, kind, store_root=str(tmp_path), **CASES[case]) for kind in ("disk", "device"))
    assert disk.statistics == geotiffs.statistics
    rounding = 0.0
    if CASES[case]["product"] == "SAR-Intensity":
        rounding = DECIBELS / min(disk.statistics.std) * 1.01
    loaders = [data.train_dataloader() for data in (geotiffs, disk, device)]
    for loader in loaders:
        loader.sampler.set_epoch(3)
    different = False
    one_by_one = CropDataset(disk.train_tiles, disk.crop, disk.crops_per_tile, disk.augmentation, disk.seed)
    draws = iter(loaders[0].sampler)
    for theirs, ours, resident in zip(*loaders, strict=True):
        same_batch(ours, theirs, rounding)
        same_batch(ours, default_collate([one_by_one[draw] for draw in islice(draws, len(ours["index"]))]), 0.0)
        same_batch(resident, ours, 0.0)
        different |= not torch.equal(ours["image"], theirs["image"])
    assert different == (rounding > 0)
    for theirs, ours in zip(geotiffs.val_dataloader(), disk.val_dataloader(), strict=True):
        same_batch(ours, theirs, rounding)


def test_workers_read_the_store(archive_root, tmp_path):
    alone, workers = (datamodule(archive_root, "disk", store_root=str(tmp_path), num_workers=n) for n in (0, 1))
    for ours, theirs in zip(workers.train_dataloader(), alone.train_dataloader(), strict=True):
        same_batch(ours, theirs, 0.0)


def test_a_batch_stays_as_it_is_while_somebody_holds_it(archive_root, tmp_path):
    loader = datamodule(archive_root, "disk", store_root=str(tmp_path)).train_dataloader()
    given = iter(loader)
    first = next(given)
    copy = {key: value.clone() for key, value in first.items() if isinstance(value, torch.Tensor)}
    part, pixels = first.pop("image")[1, 2], copy.pop("image")[1, 2]
    list(given)
    assert torch.equal(part, pixels)  # a view holds it, too
    assert all(torch.equal(first[key], copy[key]) for key in copy)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("hold", [False, True])
def test_crops_on_a_gpu_are_those_of_the_processor(fine_root, tmp_path, case, hold):
    data = datamodule(fine_root, "disk", store_root=str(tmp_path), **CASES[case])
    loader = data.train_dataloader()
    on_gpu = StoredCrops(loader.dataset.crops, data.store, torch.device("cuda"))
    if hold:
        on_gpu.hold()
    draws = iter(loader.sampler)
    for ours in loader:
        theirs = on_gpu.__getitems__(list(islice(draws, len(ours["index"]))))
        assert all(value.is_cuda for value in theirs.values() if isinstance(value, torch.Tensor))
        moved = {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in theirs.items()}
        same_batch(moved, ours, 1e-5)


def test_no_geotiff_is_read_for_a_crop(root):
    data = datamodule(root, "disk")
    shutil.rmtree(folder(root) / "SAR-Intensity")
    assert len(list(data.train_dataloader())) == data.batches_per_epoch


def test_a_loader_on_the_device_goes_on_in_the_middle_of_an_epoch(archive_root, tmp_path):
    data = datamodule(archive_root, "device", store_root=str(tmp_path))
    whole = list(data.train_dataloader())
    loader = data.train_dataloader()
    given = iter(loader)
    next(given)
    next(given)
    again = data.train_dataloader()
    again.load_state_dict(loader.state_dict())
    rest = list(again)
    assert len(rest) == len(whole) - 2
    for ours, theirs in zip(rest, whole[2:], strict=True):
        same_batch(ours, theirs, 0.0)


def test_without_room_on_the_device_the_crops_come_from_the_disk(archive_root, tmp_path, monkeypatch, caplog):
    assert free_memory(torch.device("cpu")) > 2**28
    monkeypatch.setattr("sn6.data.stored_crops.free_memory", lambda device: 10**6)
    tight = datamodule(archive_root, "device", store_root=str(tmp_path))
    disk = datamodule(archive_root, "disk", store_root=str(tmp_path))
    for ours, theirs in zip(tight.train_dataloader(), disk.train_dataloader(), strict=True):
        same_batch(ours, theirs, 0.0)
    assert "cpu has room for 0.0 GB beside a network; the crops come from the store on disk" in caplog.text


def test_radar_is_kept_within_1_1024_decibel_from_0_to_128():
    rng = np.random.default_rng(0)
    decibels = np.concatenate([rng.uniform(0, 127.99, 10**5), [0, 1e-5, 92.9, 127.99]]).astype(np.float32)
    stored = encode(decibels[None, None], "SAR-Intensity", Path("tile.tif"))
    assert stored.dtype == np.uint16
    assert np.abs(stored / 512 - decibels).max() <= DECIBELS
    for outside in (-0.5, 128.5):
        with pytest.raises(UserError, match=rf"tile.tif holds {outside}, a store keeps SAR-Intensity from 0 to 128"):
            encode(np.full((1, 1, 1), outside, np.float32), "SAR-Intensity", Path("tile.tif"))


def test_optical_values_are_kept_as_they_are_or_refused():
    for product, most in (("PS-RGB", 255), ("PS-RGBNIR", 65535)):
        values = np.arange(most + 1, dtype=np.float32).reshape(1, 16, -1)
        np.testing.assert_array_equal(encode(values, product, Path("tile.tif")), values)
        with pytest.raises(UserError, match=f"tile.tif holds 0.25, a store keeps {product} from 0 to {most}"):
            encode(values[:, :1, :1] + np.float32(0.25), product, Path("tile.tif"))


@pytest.mark.parametrize(("buildings", "dtype"), [(256, np.uint16), (65535, np.uint16), (65536, np.int32)])
def test_no_label_is_lost_to_a_smaller_type(buildings, dtype):
    instances = np.arange(buildings + 1, dtype=np.int32)[None]
    assert smallest_dtype(instances).dtype == dtype
    np.testing.assert_array_equal(smallest_dtype(instances), instances)


def files_of(store, tiles):
    """Name → time, for all files there are."""
    return {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.npy")}


def test_only_what_changed_is_stored_anew(two_tiles):
    store, tiles = store_of(two_tiles)
    first, second = (tile.image_id for tile in tiles)
    assert store.prepare(tiles) == [first, second]
    before = files_of(store, tiles)
    assert len(before) == 2 * 4
    assert store_of(two_tiles)[0].prepare(tiles) == []
    assert files_of(store, tiles) == before

    write_rows(two_tiles, first[:-1], side=14)  # of tile 2
    store, tiles = store_of(two_tiles)
    assert store.prepare(tiles) == [second]
    after = files_of(store, tiles)
    assert {path.parent.name for path in after.keys() - before.keys()} == {"instances-20.0", "boundary-20.0-10.0-5.0"}
    assert len(after) == 2 * 4  # the outdated ones are gone
    assert (store.read(tiles[1])["instances"] == 3).sum() == 14**2

    write_tile(two_tiles, "SAR-Intensity", speckle(seed=9), number=1)
    store, tiles = store_of(two_tiles)
    assert store.prepare(tiles) == [first]
    assert len(files_of(store, tiles)) == 2 * 4
    turned = speckle(seed=9)[:, ::-1, ::-1]  # the strip looks from the south
    np.testing.assert_allclose(store.read(tiles[0])["image"], turned, rtol=0, atol=DECIBELS)

    path = next((folder(two_tiles) / "SAR-Intensity").glob("*_tile_2.tif"))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    store, tiles = store_of(two_tiles)
    assert store.prepare(tiles) == [second]


def test_runs_of_other_options_share_the_image(two_tiles):
    store, tiles = store_of(two_tiles)
    store.prepare(tiles)
    before = files_of(store, tiles)
    store_of(two_tiles, None, Source("SAR-Intensity", (2, 1), orient=False, min_area=20.0))[0].prepare(tiles)
    assert files_of(store, tiles) == before
    store_of(two_tiles, PixelWeights(10.0, 4.0), Source("SAR-Intensity", (1,), orient=True, min_area=50.0))[0].prepare(
        tiles
    )
    more = files_of(store, tiles)
    assert before.items() < more.items()
    added = {path.parent.name for path in more.keys() - before.keys()}
    assert added == {"instances-50.0", "boundary-50.0-10.0-4.0"}


def prepare_and_die(root, writes):
    """Is killed in the middle of a file, after so many whole ones."""
    from sn6.data import layers

    save, done = np.save, []

    def dying(file, array):
        if len(done) == writes:
            file.write(b"\x93NUMPY half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(save(file, array))

    layers.np.save = dying
    store, tiles = store_of(root)
    store.prepare(tiles)


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_a_store_whose_making_was_killed_is_gone_on_with(two_tiles, writes):
    process = SERVER.Process(target=prepare_and_die, args=(two_tiles, writes))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store, tiles = store_of(two_tiles)
    whole = [path for path in store.folder.rglob("*.npy") if not path.name.startswith(".")]
    assert len(whole) == writes
    kept = {path: path.stat().st_mtime_ns for path in whole}
    assert all(len(np.load(path)) for path in whole)
    assert store.prepare(tiles) == [tile.image_id for tile in tiles[writes // 4 :]]
    now = files_of(store, tiles)
    assert len(now) == 2 * 4
    assert kept.items() <= now.items()
    for tile in tiles:
        store.read(tile)


def prepare_here(ranks, root):
    store, tiles = store_of(root)
    return store.prepare(tiles)


def test_of_two_processes_one_makes_the_store(root):
    made = on_ranks(prepare_here, 2, root)
    tiles = [tile.image_id for tile in store_of(root)[1]]
    assert sorted(map(len, made)) == [0, len(tiles)]


def test_a_store_is_made_in_several_processes(two_tiles, monkeypatch):
    monkeypatch.setattr("sn6.data.store.FEW", 0)
    store, tiles = store_of(two_tiles)
    assert len(store.prepare(tiles)) == 2
    apart, _ = store_of(two_tiles)
    apart.folder = two_tiles / "apart"
    monkeypatch.setattr("sn6.data.store.FEW", 10**9)
    apart.prepare(tiles)
    for path in store.folder.rglob("*.npy"):
        assert path.read_bytes() == (apart.folder / path.relative_to(store.folder)).read_bytes()


def test_a_tile_that_cannot_be_read_is_named(two_tiles, monkeypatch):
    path = next((folder(two_tiles) / "SAR-Intensity").glob("*_tile_2.tif"))
    store, tiles = store_of(two_tiles)
    with rasterio.open(path, "r+") as file:
        file.write(np.full((4, 64, 64), np.nan, np.float32))
    monkeypatch.setattr("sn6.data.store.FEW", 0)
    with pytest.raises(UserError, match=r"^[^\n]*_tile_2.tif holds NaN or infinity, first at row 0, column 0[^\n]*$"):
        store.prepare(tiles)


def test_broken_and_vanished_files_are_told(two_tiles):
    store, tiles = store_of(two_tiles)
    store.prepare(tiles)
    path = store.files(tiles[0])["image"]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"{path} is broken .*; remove it and run again"):
        store.read(tiles[0])
    path.unlink()
    with pytest.raises(UserError, match=rf"{path} is gone: the archive was changed under the run"):
        store.read(tiles[0])


def test_a_disk_without_room_is_told_before_anything_is_written(two_tiles, monkeypatch):
    monkeypatch.setattr("sn6.data.store.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 50000))
    store, tiles = store_of(two_tiles)
    message = (
        r"takes 0.0 GB more, and 0.0 GB are free; make room, set data.store_root to another disk, or data.store=null"
    )
    with pytest.raises(UserError, match=message):
        store.prepare(tiles)
    assert not files_of(store, tiles)
    held = 64 * 64 * (4 * 2 + 1 + 2 + 4) * 2
    monkeypatch.setattr("sn6.data.store.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, held))
    assert len(store.prepare(tiles)) == 2
    assert held < sum(path.stat().st_size for path in files_of(store, tiles)) < held + 8 * 200


def test_a_run_beside_whose_archive_no_store_can_lie_is_told_where_it_can(sn6_run, root, tmp_path):
    (root / ".sn6").write_text("in the way, as a read-only folder is")
    line = [*small_run("unet"), "model.depth=2", f"data.root={root}", "data.store=device"]
    fails(sn6_run(*line), root / ".sn6", "cannot be written", "set data.store_root", "data.store=null")
    done = sn6_run(*line, f"data.store_root={tmp_path / 'elsewhere'}")
    assert done.status == 0, done.err
    assert list((tmp_path / "elsewhere").glob("root-*/SAR-Intensity/image/*.npy"))


@contextmanager
def read_only(root):
    """As somebody who may read the archive and write nothing."""
    for path in (root, *root.rglob(".sn6/**/*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    os.seteuid(65534 if is_root else os.geteuid())
    try:
        yield
    finally:
        os.seteuid(0 if is_root else os.geteuid())
        for path in (root, *root.rglob(".sn6/**/")):
            path.chmod(0o755)


def test_who_may_only_read_is_told_so_or_served_by_a_finished_store(two_tiles, monkeypatch):
    monkeypatch.chdir(two_tiles)  # the folders above may be closed to others
    here, tiles = store_of(Path())
    here.files(tiles[0])  # reads the labels and what of Python that takes
    with read_only(two_tiles), pytest.raises(UserError) as error:
        here.prepare(tiles)
    assert str(error.value) == (
        ".sn6/store/SAR-Intensity cannot be written (Permission denied); set data.store_root to a folder that can, "
        "or data.store=null to do without a store"
    )
    here.prepare(tiles)
    with read_only(two_tiles):
        assert here.prepare(tiles) == []
        assert here.read(tiles[0])["image"].shape == (4, 64, 64)


STOP = ["+callbacks.stop._target_=helpers.stopping.StopAt", "callbacks.resume_point.every_n_steps=1"]


def test_a_run_from_the_store_goes_on_to_the_same_bits(root, tmp_path):
    more = ["model.depth=2", "loss=weighted_boundary", "data.num_workers=1", "data.store=disk", *STOP]
    line = [*small_run("unet"), *more, f"data.root={root}"]
    left = []
    for name, stop in (("never", None), ("stopped", "SIGKILL it 0 1")):
        here = tmp_path / name
        here.mkdir()
        if stop is not None:
            assert run_and_stop(line, here, stop) == -signal.SIGKILL
        assert run_and_stop(line, here) == 0, (here / "log.txt").read_text()[-3000:]
        held = torch.load(here / "outputs/it/checkpoints/last.ckpt", weights_only=True)
        left.append((held["state_dict"], (here / "outputs/it/proposals.csv").read_text()))
    assert all(torch.equal(left[0][0][name], left[1][0][name]) for name in left[0][0])
    assert left[0][1] == left[1][1]
