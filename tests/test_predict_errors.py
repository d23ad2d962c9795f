"""Report invalid input of `python -m sn6.predict` in one line, and leave no output folder."""

import os

import numpy as np
import pytest
import rasterio
import torch
from helpers.commands import assert_fails
from helpers.errors import user_error
from helpers.handmade import speckle, write_tif
from helpers.networks import random_network, write_network
from helpers.published_nets import unet11_file

from sn6.prediction.ensemble import Averaging, Ensemble
from sn6.prediction.trained_network import load_network
from sn6.prediction.workers import list_devices


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture
def weights(network, tmp_path):
    return write_network(tmp_path / "weights.safetensors", network)


@pytest.fixture
def sn6_predict(sn6_command, tmp_path):
    """`python -m sn6.predict overrides... out=<tmp_path>/out` in this process, on the CPU."""
    return lambda *overrides: sn6_command("predict", f"out={tmp_path}/out", *overrides, "device=cpu")


@pytest.mark.parametrize(
    ("overrides", "kind", "key", "value"),
    [
        (["root={root}", "images=x"], "conflict", "root", None),
        (["root={root}", "tiles=4711"], "not_found", "tiles", "4711"),
        (["root={root}", "tiles=[4711]"], "not_found", "tiles", "4711"),
        (["images={root}", "tiles=4711"], "conflict", "tiles", ["4711"]),
        (["root={root}", "rotate=true"], "conflict", "rotate", True),
        (["images=nowhere"], "not_found", "images", "nowhere"),
        (["root={root}", "window=64", "overlap=64"], "invalid_value", "overlap", 64),
        (["root={root}", "window=0"], "invalid_value", "window", "0"),
        (["root={root}", "devices=999"], "invalid_value", "devices", 999),
        (["root={root}", "threshold=1"], "invalid_value", "threshold", "1"),
        (["root={root}", "scales=[]"], "invalid_value", "scales", []),
    ],
)
def test_invalid_options_are_an_error(sn6_predict, weights, archive_root, tmp_path, overrides, kind, key, value):
    given = [override.replace("{root}", str(archive_root)) for override in overrides]
    done = sn6_predict(f"checkpoint={weights}", *given)
    assert_fails(done, kind, key)
    assert value is None or done.error.value == value
    assert not (tmp_path / "out").exists()


def test_images_and_folders_that_do_not_exist_are_an_error(sn6_predict, weights, archive_root, tmp_path):
    checkpoint = f"checkpoint={weights}"
    assert_fails(sn6_predict(checkpoint), "missing_value", "root")
    (tmp_path / "empty").mkdir()
    assert_fails(sn6_predict(checkpoint, f"images={tmp_path}/empty"), "not_found", "images", f"{tmp_path}/empty")
    done = sn6_predict(f"checkpoint={tmp_path}/empty", f"root={archive_root}")
    assert_fails(done, "not_found", "checkpoint", f"{tmp_path}/empty")
    done = sn6_predict("checkpoint=none.ckpt", f"root={archive_root}")
    assert_fails(done, "not_found", "checkpoint", "none.ckpt")
    done = sn6_predict(checkpoint, f"root={tmp_path}/empty")
    assert done.status == 1
    assert f"{tmp_path}/empty" in str(done.error)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_not_overwritten(sn6_command, weights, archive_root, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    done = sn6_command("predict", f"checkpoint={weights}", f"root={archive_root}", f"out={tmp_path}/full")
    assert_fails(done, "conflict", "out", f"{tmp_path}/full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_unusable_images_are_an_error(sn6_predict, weights, tmp_path):
    def assert_image_fails(name, kind, value=None):
        done = sn6_predict(f"checkpoint={weights}", f"images={(tmp_path / name).parent}")
        assert_fails(done, kind, tmp_path / name)
        assert value is None or done.error.value == value

    write_tif(tmp_path / "three/a.tif", speckle(3))
    assert_image_fails("three/a.tif", "wrong_data", 3)
    write_tif(tmp_path / "coarse/a.tif", speckle(), pixel=2.0)
    assert_image_fails("coarse/a.tif", "wrong_data", 2.0)
    write_tif(tmp_path / "placed/a.tif", speckle())
    write_tif(tmp_path / "placed/b.tif", speckle(), crs=None)
    assert_image_fails("placed/b.tif", "conflict")
    write_tif(tmp_path / "names/a.tif", speckle())
    write_tif(tmp_path / "names/a.tiff", speckle())
    assert_image_fails("names/a.tiff", "conflict", "a")
    write_tif(tmp_path / "comma/a,b.tif", speckle())
    assert_image_fails("comma/a,b.tif", "invalid_value", "a,b")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.tif").write_text("no tif")
    assert_image_fails("text/a.tif", "unreadable")
    path = write_tif(tmp_path / "short/a.tif", speckle(size=200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_image_fails("short/a.tif", "unreadable")


def test_a_rotated_image_without_a_crs_is_an_error(sn6_predict, weights, tmp_path):
    path = write_tif(tmp_path / "rotated.tif", speckle(), crs=None)
    with rasterio.open(path, "r+") as file:
        file.transform = file.transform @ rasterio.Affine.rotation(10)
    assert_fails(sn6_predict(f"checkpoint={weights}", f"images={path}"), "wrong_data", path)


def test_checkpoints_that_do_not_fit_together_are_an_error(sn6_predict, network, weights, archive_root, tmp_path):
    root = f"root={archive_root}"
    bands = write_network(tmp_path / "bands.safetensors", network, source={"bands": [4, 3, 2, 1]})
    assert_fails(sn6_predict(f"checkpoint=[{weights},{bands}]", root), "conflict", "checkpoint", str(bands))
    product = write_network(tmp_path / "product.safetensors", network, source={"product": "RGBNIR"})
    assert_fails(sn6_predict(f"checkpoint=[{weights},{product}]", root), "conflict", "checkpoint", str(product))
    other = write_network(tmp_path / "other.safetensors", network, footprints={"simplify": 1.5})
    assert_fails(sn6_predict(f"checkpoint=[{weights},{other}]", root), "conflict", "simplify")
    own = {"_target_": "own_polygons.Columns"}
    foreign = write_network(tmp_path / "foreign.safetensors", network, footprints=own)
    assert_fails(sn6_predict(f"checkpoint={foreign}", root), "missing_value", "allow", ["own_polygons.Columns"])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"network": {"width": 8}}, "mismatch"),
        ({"network": {"_target_": "sn6.models.unet.Unknown"}}, "wrong_data"),
        ({"network": {"_target_": "sn6.models.unet.double_convolution"}}, "wrong_data"),  # no network
        ({"network": {"_target_": "sn6.files.write_text"}}, "wrong_data"),
        ({"footprints": {"threshold": -0.7}}, "wrong_data"),  # a logit, as sn6 once wrote
        ({"source": {"bands": [9]}}, "wrong_data"),
    ],
)
def test_a_checkpoint_with_wrong_metadata_is_an_error(sn6_predict, network, archive_root, tmp_path, changes, kind):
    path = write_network(tmp_path / "changed.safetensors", network, **changes)
    assert_fails(sn6_predict(f"checkpoint={path}", f"root={archive_root}"), kind, "checkpoint", str(path))


def test_an_unreadable_checkpoint_is_an_error(sn6_predict, weights, archive_root, tmp_path):
    weights.write_bytes(weights.read_bytes()[:1000])
    assert_fails(sn6_predict(f"checkpoint={weights}", f"root={archive_root}"), "unreadable", weights)
    path = tmp_path / "truncated.ckpt"
    torch.save({"state_dict": {"network.head.weight": torch.zeros(9)}}, path)
    path.write_bytes(path.read_bytes()[:500])
    assert_fails(sn6_predict(f"checkpoint={path}", f"root={archive_root}"), "unreadable", "checkpoint", str(path))


def test_published_weights_without_metadata_are_an_error(sn6_predict, archive_root, tmp_path):
    torch.save(unet11_file(bands=4), tmp_path / "baseline.pth")
    done = sn6_predict(f"checkpoint={tmp_path}/baseline.pth", f"root={archive_root}")
    assert_fails(done, "wrong_data", "checkpoint", f"{tmp_path}/baseline.pth")


def test_devices_are_listed_or_an_error(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert list_devices("cpu", 3) == ["cpu"] * 3
    assert list_devices("auto", 1) == list_devices("cuda", 1) == ["cuda:0"]
    assert list_devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert list_devices("cuda:1", 1) == ["cuda:1"]
    for device, count in (("cpu", 5), ("cuda", 3), ("cuda:1", 2)):
        with user_error("invalid_value", key="devices", value=count):
            list_devices(device, count)
    for device in ("tpu", "cuda:", "cuda:x", "cpu:1"):
        with user_error("unknown_value", key="device", value=device):
            list_devices(device, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:3"):
        with user_error("not_found", key="device", value=device):
            list_devices(device, 1)


def test_a_batch_that_exceeds_the_memory_is_an_error(weights, monkeypatch):
    trained = load_network(weights)
    ensemble = Ensemble([trained], "cpu", Averaging(flips=False, scales=(1.0,), precision="32-true"))

    def forward(image):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trained.network, "forward", forward)
    pixels, valid = np.ones((4, 8, 8), dtype=np.float32), np.ones((8, 8), dtype=bool)
    with user_error("failed", key="batch", value=2):
        ensemble.outputs([pixels, pixels], [valid, valid])
