"""A store gives what the GeoTIFFs give, is made once, and is updated where they have changed."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from helpers.commands import assert_fails, small_run
from helpers.errors import user_error
from helpers.handmade import folder, speckle, write_labels, write_orientations, write_tile
from helpers.ranks import on_ranks
from helpers.stopping import SERVER, run_and_stop

from sn6.data.datamodule import TileDataModule
from sn6.data.source import Source
from sn6.data.store import Store, store_folder
from sn6.data.store_layers import encode, smallest_dtype
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6, tile_path
from sn6.targets.boundary import BoundaryWeights

TARGETS = {"weight": BoundaryWeights(w0=10.0, sigma=2.5)}
SAR = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=20.0)
PRECISION = 1 / 1024  # decibels, as documented


@pytest.fixture
def root(archive_root, tmp_path):
    """Copy the archive, to store its tiles in it, without the cache of other tests' runs."""
    return shutil.copytree(archive_root, tmp_path / "root", ignore=shutil.ignore_patterns(".sn6"))


@pytest.fixture
def two_tiles(tmp_path):
    """Write an archive of two SAR tiles with three buildings each."""
    for number in (1, 2):
        name = write_tile(tmp_path, "SAR-Intensity", speckle(seed=number), number=number)
    write_rows(tmp_path, name[:-1])
    write_orientations(tmp_path)
    return tmp_path


def write_rows(root, stem, side=12):
    """Write the labels of both tiles; `side` is the edge length of the last building of tile 2."""
    rows = ""
    for number in (1, 2):
        for i, (x, y) in enumerate(((4, 30), (18, 30), (40, 40))):
            s = side if (number, i) == (2, 2) else 12
            rows += (
                f'{stem}{number},{i},"POLYGON (({x} {y}, {x + s} {y}, {x + s} {y + s}, {x} {y + s}, {x} {y}))",5,5,1\n'
            )
    write_labels(root, rows)


def store_of(root, targets=TARGETS, source=SAR):
    """Return the store that a new process makes, and its tiles."""
    archive = SpaceNet6(root)
    return Store(archive, source, store_folder(root, None), targets), archive.tiles("train", source.product.name)


def test_sar_is_stored_within_1_1024_decibel_from_0_to_128():
    rng = np.random.default_rng(0)
    decibels = np.concatenate([rng.uniform(0, 127.99, 10**5), [0, 1e-5, 92.9, 127.99]]).astype(np.float32)
    stored = encode(decibels[None, None], PRODUCTS["SAR-Intensity"], Path("tile.tif"))
    assert stored.dtype == np.uint16
    assert np.abs(stored / 512 - decibels).max() <= PRECISION
    for outside in (-0.5, 128.5):
        with user_error("wrong_data", "tile.tif", outside):
            encode(np.full((1, 1, 1), outside, np.float32), PRODUCTS["SAR-Intensity"], Path("tile.tif"))


@pytest.mark.parametrize(("product", "maximum"), [("PS-RGB", 255), ("PS-RGBNIR", 65535)])
def test_optical_values_are_stored_exactly_or_refused(product, maximum):
    values = np.arange(maximum + 1, dtype=np.float32).reshape(1, 16, -1)
    np.testing.assert_array_equal(encode(values, PRODUCTS[product], Path("tile.tif")), values)
    with user_error("wrong_data", "tile.tif", 0.25):
        encode(values[:, :1, :1] + np.float32(0.25), PRODUCTS[product], Path("tile.tif"))


@pytest.mark.parametrize(("buildings", "dtype"), [(256, np.uint16), (65535, np.uint16), (65536, np.int32)])
def test_no_label_is_lost_in_a_smaller_dtype(buildings, dtype):
    instances = np.arange(buildings + 1, dtype=np.int32)[None]
    assert smallest_dtype(instances).dtype == dtype
    np.testing.assert_array_equal(smallest_dtype(instances), instances)


def file_times(store):
    """Return the time of each file of a store, by its path."""
    return {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.npy")}


def test_only_changed_tiles_are_stored_again(two_tiles):
    store, tiles = store_of(two_tiles)
    first, second = (tile.image_id for tile in tiles)
    assert store.prepare(tiles) == [first, second]
    before = file_times(store)
    assert len(before) == 2 * 4
    assert store_of(two_tiles)[0].prepare(tiles) == []
    assert file_times(store) == before

    write_rows(two_tiles, first[:-1], side=14)  # of tile 2
    store, tiles = store_of(two_tiles)
    assert store.prepare(tiles) == [second]
    after = file_times(store)
    layers = {path.parent for path in after.keys() - before.keys()}
    assert layers == {store.files(tiles[1])[layer].parent for layer in ("instances", "weight")}
    assert len(after) == 2 * 4  # the outdated ones are removed
    assert (store.read(tiles[1])["instances"] == 3).sum() == 14**2

    write_tile(two_tiles, "SAR-Intensity", speckle(seed=9), number=1)
    store, tiles = store_of(two_tiles)
    assert store.prepare(tiles) == [first]
    assert len(file_times(store)) == 2 * 4
    rotated = speckle(seed=9)[:, ::-1, ::-1]  # the strip is imaged from the south
    np.testing.assert_allclose(store.read(tiles[0])["image"], rotated, rtol=0, atol=PRECISION)

    path = next((folder(two_tiles) / "SAR-Intensity").glob("*_tile_2.tif"))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    store, tiles = store_of(two_tiles)
    assert store.prepare(tiles) == [second]


def test_runs_with_other_options_share_the_image(two_tiles):
    store, tiles = store_of(two_tiles)
    store.prepare(tiles)
    before = file_times(store)
    other_bands = Source(PRODUCTS["SAR-Intensity"], (2, 1), orient=False, min_area=20.0)
    store_of(two_tiles, {}, other_bands)[0].prepare(tiles)
    assert file_times(store) == before
    other_labels = Source(PRODUCTS["SAR-Intensity"], (1,), orient=True, min_area=50.0)
    store_of(two_tiles, {"weight": BoundaryWeights(10.0, 2.0)}, other_labels)[0].prepare(tiles)
    more = file_times(store)
    assert before.items() < more.items()
    added = {path.parent for path in more.keys() - before.keys()}
    assert len(added) == 2
    assert not added & {path.parent for path in before}
    same = {"another name": BoundaryWeights(10.0, 2.5)}
    assert store_of(two_tiles, same)[0].prepare(tiles) == []


def prepare_until_killed(root, writes):
    """Kill this process in the middle of a file, after so many complete ones."""
    from sn6.data import store_layers

    save, saved = np.save, []

    def save_or_die(file, array):
        if len(saved) == writes:
            file.write(b"\x93NUMPY half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(save(file, array))

    store_layers.np.save = save_or_die
    store, tiles = store_of(root)
    store.prepare(tiles)


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_an_interrupted_store_is_completed(two_tiles, writes):
    process = SERVER.Process(target=prepare_until_killed, args=(two_tiles, writes))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store, tiles = store_of(two_tiles)
    complete = [path for path in store.folder.rglob("*.npy") if not path.name.startswith(".")]
    assert len(complete) == writes
    before = {path: path.stat().st_mtime_ns for path in complete}
    assert all(len(np.load(path)) for path in complete)
    assert store.prepare(tiles) == [tile.image_id for tile in tiles[writes // 4 :]]
    after = file_times(store)
    assert len(after) == 2 * 4
    assert before.items() <= after.items()
    for tile in tiles:
        store.read(tile)


def prepare_on_rank(ranks, root):
    store, tiles = store_of(root)
    return store.prepare(tiles)


def test_only_one_of_two_processes_makes_the_store(two_tiles):
    stored = on_ranks(prepare_on_rank, 2, two_tiles)
    assert sorted(map(len, stored)) == [0, 2]


@pytest.mark.slow
def test_a_store_is_made_in_several_processes(two_tiles, monkeypatch):
    monkeypatch.setattr("sn6.data.store.MIN_SIZE_FOR_POOL", 0)
    store, tiles = store_of(two_tiles)
    assert len(store.prepare(tiles)) == 2
    other, _ = store_of(two_tiles)
    other.folder = two_tiles / "other"
    monkeypatch.setattr("sn6.data.store.MIN_SIZE_FOR_POOL", 10**9)
    other.prepare(tiles)
    for path in store.folder.rglob("*.npy"):
        assert path.read_bytes() == (other.folder / path.relative_to(store.folder)).read_bytes()


def test_a_tile_with_a_value_that_is_no_decibel(two_tiles, monkeypatch):
    store, tiles = store_of(two_tiles)
    path = tile_path(two_tiles, "train", "SAR-Intensity", tiles[1].image_id)
    with rasterio.open(path, "r+") as file:
        file.write(np.full((4, 64, 64), 500, np.float32))
    monkeypatch.setattr("sn6.data.store.MIN_SIZE_FOR_POOL", 0)  # the error is raised in another process
    with user_error("wrong_data", path):
        store.prepare(tiles)


def test_broken_and_missing_files(two_tiles):
    store, tiles = store_of(two_tiles)
    store.prepare(tiles)
    path = store.files(tiles[0])["image"]
    path.write_bytes(path.read_bytes()[:1000])
    with user_error("unreadable", path):
        store.read(tiles[0])
    path.unlink()
    with user_error("not_found", path):
        store.read(tiles[0])


def test_a_full_disk_is_reported_before_anything_is_written(two_tiles, monkeypatch):
    monkeypatch.setattr("sn6.files.shutil.disk_usage", lambda path: SimpleNamespace(free=50000))
    store, tiles = store_of(two_tiles)
    with user_error("unwritable", store.folder):
        store.prepare(tiles)
    assert not file_times(store)
    size = 64 * 64 * (4 * 2 + 1 + 2 + 4) * 2
    monkeypatch.setattr("sn6.files.shutil.disk_usage", lambda path: SimpleNamespace(free=size))
    assert len(store.prepare(tiles)) == 2
    assert size < sum(path.stat().st_size for path in file_times(store)) < size + 8 * 200


def test_another_folder_where_the_archive_cannot_be_written(sn6_run, root, tmp_path):
    (root / ".sn6").write_text("a file in place of the folder, as if it were read-only")
    done = sn6_run(*small_run("unet"), "model.depth=2", f"data.root={root}", "data.store=device")
    assert_fails(done, "unwritable", root / ".sn6/store/SAR-Intensity")
    data = TileDataModule(SpaceNet6(root), product="SAR-Intensity", store="device", store_root=str(tmp_path / "other"))
    data.setup()
    assert list((tmp_path / "other").glob("root-*/SAR-Intensity/image/*.npy"))


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Run the block as a user who may read the archive but not write to it."""
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


def test_a_complete_store_is_enough_for_a_user_who_may_only_read(two_tiles, monkeypatch):
    monkeypatch.chdir(two_tiles)  # the folders above may be closed to others
    store, tiles = store_of(Path())
    store.files(tiles[0])  # reads the labels, and imports the modules that this needs
    with read_only(two_tiles), user_error("unwritable", ".sn6/store/SAR-Intensity"):
        store.prepare(tiles)
    store.prepare(tiles)
    with read_only(two_tiles):
        assert store.prepare(tiles) == []
        assert store.read(tiles[0])["image"].shape == (4, 64, 64)


@pytest.mark.slow
def test_a_run_from_the_store_resumes_bit_identically(root, tmp_path):
    stop_at = ["+callbacks.stop._target_=helpers.stopping.StopAt", "callbacks.resume_point.every_n_steps=1"]
    options = ["model.depth=2", "loss=weighted_boundary", "data.num_workers=1", "data.store=disk", *stop_at]
    overrides = [*small_run("unet"), *options, f"data.root={root}"]
    results = []
    for name, stop in (("uninterrupted", None), ("interrupted", "SIGKILL it 0 1")):
        work = tmp_path / name
        work.mkdir()
        if stop is not None:
            assert run_and_stop(overrides, work, stop) == -signal.SIGKILL
        assert run_and_stop(overrides, work) == 0, (work / "log.txt").read_text()[-3000:]
        checkpoint = torch.load(work / "outputs/it/checkpoints/last.ckpt", weights_only=True)
        results.append((checkpoint["state_dict"], (work / "outputs/it/proposals.csv").read_text()))
    (weights, proposals), (resumed_weights, resumed_proposals) = results
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)
    assert proposals == resumed_proposals
