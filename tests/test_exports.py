"""Exported files compute what their networks do, from the values of image files: ONNX, pt2 and Deepness."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import assert_fails
from helpers.exported import (
    NETWORKS,
    THREE,
    TINY,
    WINDOW,
    metadata_of,
    nodata_of,
    outputs_of,
    parsed_metadata,
    run_file,
    sigmoid,
    values_of_files,
    write_random,
)

from sn6.datasets.radar_units import Units

PRODUCT = {"name": "radar", "bands": list("abcd"), "dtype": "float32", "pixel_size": 0.5, "sensor": "radar"}
SOURCE = {"product": PRODUCT, "bands": [1, 2, 3, 4], "orient": False, "min_area": 20.0}
CLASSES = {"classes": {"_target_": "sn6.targets.classes.Classes", "names": ["house", "shed"]}}


@pytest.fixture
def sn6_export(sn6_command, tmp_path):
    """`python -m sn6.export checkpoint=weights out=NAME window=64 ...` in this process; returns the file."""

    def export(name, *overrides, window=WINDOW):
        options = [f"checkpoint={tmp_path}/w.safetensors", f"out={tmp_path}/{name}", f"window={window}"]
        done = sn6_command("export", *options, *overrides)
        assert done.status == 0, done.err
        return tmp_path / name

    return export


def assert_equal_maps(file, network, heads=("mask",)):
    """Compare each named tensor with the network's, normalised by hand."""
    values = values_of_files()
    given, outputs, nodata = run_file(file, values), outputs_of(network, values), nodata_of(values)
    assert list(given) == [*heads, "outputs"]
    np.testing.assert_allclose(given["outputs"], outputs, atol=1e-4)
    assert outputs.std() > 0.1  # else all are equal
    for channel, name in enumerate(heads):
        expected = outputs[:, channel : channel + 1]
        expected = np.where(nodata, 0, expected if name == "height" else sigmoid(expected))
        np.testing.assert_allclose(given[name], expected, atol=1e-4, err_msg=name)


def test_an_onnx_file_computes_the_maps(sn6_export, tmp_path):
    network = write_random(tmp_path / "w.safetensors", NETWORKS["ternausnet"])
    file = sn6_export("m.onnx")
    assert_equal_maps(file, network)
    about = parsed_metadata(file)
    assert (about["window"], about["window_overlap"], about["precision"]) == (WINDOW, WINDOW // 4, "32-true")
    assert about["footprints"] == {"threshold": 0.4}
    assert about["export"]["format"] == "onnx"
    assert str(tmp_path).encode() not in file.read_bytes()
    assert b"site-packages" not in file.read_bytes()


def test_a_program_of_torch_computes_the_maps(sn6_export, tmp_path):
    network = write_random(tmp_path / "w.safetensors", NETWORKS["ternausnet"])
    file = sn6_export("m.pt2")
    assert_equal_maps(file, network)
    assert parsed_metadata(file)["window"] == WINDOW
    assert b"site-packages" not in file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "ternausnet"])
def test_every_network_is_exported(name, sn6_export, tmp_path):
    heads = {"heads": {one: THREE[one] for one in ("mask", "contact", "height")}} if name == "timm" else {}
    network = write_random(tmp_path / "w.safetensors", NETWORKS[name], **heads)
    for suffix in ("onnx", "pt2"):
        names = ("mask", "contact", "height") if heads else ("mask",)
        assert_equal_maps(sn6_export(f"m.{suffix}"), network, names)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_attention_of_a_fixed_size_is_exported(suffix, sn6_export, tmp_path):
    """MaxViT takes one size; the command itself compares the file with the network."""
    options = NETWORKS["timm"] | {"encoder": "test_maxvit"}
    write_random(tmp_path / "w.safetensors", options, size=160, multiple=160, window=None, window_overlap=None)
    file = sn6_export(f"m.{suffix}", window=160)
    assert run_file(file, np.zeros((1, 4, 160, 160), np.float32))["mask"].shape == (1, 1, 160, 160)


@pytest.mark.parametrize("nodata", ["zero", "as_is"])
def test_power_becomes_decibels_in_the_graph(nodata, sn6_export, tmp_path):
    """0 and less have no decibels; the nodata value is one of the files, not of the decibels."""
    units = {"name": "power", "scale": 1e-3, "offset": 80.0}
    source = SOURCE | {"product": PRODUCT | {"units": units, "nodata": -9999.0}}
    network = write_random(tmp_path / "w.safetensors", TINY, source=source, nodata=nodata)
    decibels = values_of_files(4)
    missing = nodata_of(decibels)
    missing[:, 0, 60, 60:] = True
    values = (10 ** ((decibels.astype(np.float64) - 80) / 10) / 1e-3).astype(np.float32)
    values = np.where(nodata_of(decibels), np.float32(-9999), values)
    values[:, 0, 60, 60], values[:, 1, 60, 61:] = 0, -1
    given = run_file(sn6_export("m.onnx"), values)
    if nodata == "zero":
        expected = outputs_of(network, np.where(missing, np.nan, decibels))
    else:  # nodata is 0 dB
        expected = outputs_of(network, np.where(missing, np.float32([0, 1e-9, 0, 0])[:, None, None], decibels))
    np.testing.assert_allclose(given["outputs"], expected, atol=2e-4)
    np.testing.assert_allclose(given["mask"], np.where(missing, 0, sigmoid(expected)), atol=1e-4)


def test_classes_give_the_mask(sn6_export, tmp_path):
    network = write_random(tmp_path / "w.safetensors", TINY | {"classes": 3}, heads=CLASSES)
    values = values_of_files(3)
    given, outputs = run_file(sn6_export("m.onnx"), values), outputs_of(network, values).astype(np.float64)
    assert list(given) == ["mask", "classes", "outputs"]
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    classes = np.where(nodata_of(values), 0, exponentials / exponentials.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(given["classes"], classes, atol=1e-4)
    np.testing.assert_allclose(
        given["mask"][:, 0], np.where(nodata_of(values)[:, 0], 0, classes[:, 1:].sum(1)), atol=1e-4
    )


def test_one_of_several_classes_is_building(sn6_export, tmp_path):
    options = TINY | {"classes": 3}
    network = write_random(tmp_path / "w.safetensors", options, building_class=1)
    values = values_of_files(2)
    outputs = outputs_of(network, values)
    expected = outputs[:, 1:2] - outputs[:, ::2].max(axis=1, keepdims=True)
    given = run_file(sn6_export("m.onnx"), values)
    np.testing.assert_allclose(given["outputs"], expected, atol=1e-4)


# --- Deepness ---------------------------------------------------------------------------------------------------


def in_plugin(file, layer, threshold):
    """What the plugin does with the tiles (n, h, w, c) of a layer: the class of each pixel, and the tensor before."""
    image = np.transpose(np.float32(layer * 1.0 / 255.0), (0, 3, 1, 2))
    (probability,) = run_file(file, image).values()
    result = probability.copy()
    result[result < threshold] = 0.0
    return np.argmax(result, axis=1), probability


def test_deepness_gets_the_probability_and_its_metadata(sn6_export, tmp_path):
    network = write_random(tmp_path / "w.safetensors", TINY)
    file = sn6_export("m.onnx", "format=deepness")
    entries = {key: json.loads(value) for key, value in metadata_of(file).items()}
    assert entries["model_type"] == "Segmentor"
    assert entries["class_names"] == {"0": "background", "1": "building"}
    assert entries["resolution"] == 50  # cm
    assert entries["tile_size"] == entries["tiles_size"] == WINDOW
    assert entries["tiles_overlap"] == 25  # percent
    assert entries["seg_thresh"] == 0.4
    assert entries["seg_small_segment"] == 0
    assert entries["sn6"]["export"]["format"] == "deepness"
    values = values_of_files(3)
    classes, probability = in_plugin(file, np.transpose(values, (0, 2, 3, 1)), entries["seg_thresh"])
    expected = np.where(nodata_of(values), 0, sigmoid(outputs_of(network, values)))
    np.testing.assert_allclose(probability[:, 1:], expected, atol=1e-4)
    near = np.abs(expected[:, 0] - 0.4) < 1e-4
    assert ((classes == (expected[:, 0] > 0.4)) | near).all()
    assert 0.1 < classes.mean() < 0.9


# --- invalid input ----------------------------------------------------------------------------------------------


class Branches(torch.nn.Module):
    """Compute one of two things, by the values of the image."""

    def forward(self, image):
        return image[:, :1] if image.mean() > 0 else -image[:, :1]


class Bessel(torch.nn.Module):
    """Use an operator that ONNX does not have."""

    def forward(self, image):
        return torch.special.bessel_j1(image[:, :1])


@pytest.mark.parametrize(("network", "text"), [(Branches, "control flow"), (Bessel, "bessel_j1")])
def test_a_network_that_cannot_be_exported_is_named(network, text, sn6_command, tmp_path, monkeypatch):
    from sn6.checkpoints.weights_file import write_weights

    monkeypatch.syspath_prepend(str(tmp_path))
    target = f"{__name__}.{network.__name__}"
    metadata = {"network": {"_target_": target}, "source": SOURCE, "nodata": "zero"}
    metadata |= {"mean": [0.0] * 4, "std": [1.0] * 4, "footprints": {"threshold": 0.5}}
    write_weights(tmp_path / "w.safetensors", network().state_dict(), metadata)
    options = [f"checkpoint={tmp_path}/w.safetensors", f"out={tmp_path}/m.onnx", f"window={WINDOW}"]
    assert_fails(sn6_command("export", *options), "missing_value", "allow", [target])
    done = sn6_command("export", *options, f"allow={target}")
    assert_fails(done, "failed", "checkpoint", network.__name__)
    assert text in str(done.error)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (["out=m.bin"], "invalid_value", "out"),
        (["out=m.onnx", "format=pt2"], "invalid_value", "out"),
        (["out=m.onnx", "window=100"], "invalid_value", "window"),
        (["out=m.onnx", "root=a", "images=b"], "conflict", "root"),
        (["out=m.onnx", "images=nothing"], "not_found", "images"),
        (["out=m.onnx", "checkpoint=nothing"], "not_found", "checkpoint"),
        (["out=m.onnx", "format=tflite"], "invalid_value", "format"),
    ],
)
def test_invalid_input_is_one_line(overrides, kind, key, sn6_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path / "w.safetensors", TINY)
    given = [] if any("checkpoint" in one for one in overrides) else ["checkpoint=w.safetensors"]
    assert_fails(sn6_command("export", *given, *overrides), kind, key)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_window_that_does_not_fit_names_the_nearest(sn6_command, tmp_path):
    write_random(tmp_path / "w.safetensors", TINY)
    options = [f"checkpoint={tmp_path}/w.safetensors", f"out={tmp_path}/m.onnx", "window=500"]
    done = sn6_command("export", *options)
    assert_fails(done, "invalid_value", "window", 500)
    assert "480 or 512" in str(done.error)


def test_a_missing_package_is_named(sn6_command, tmp_path, monkeypatch):
    write_random(tmp_path / "w.safetensors", TINY)
    monkeypatch.setattr("sn6.exports.model_file.find_spec", lambda name: None if name == "onnxscript" else name)
    done = sn6_command("export", f"checkpoint={tmp_path}/w.safetensors", f"out={tmp_path}/m.onnx")
    assert_fails(done, "unavailable", "onnxscript")
    assert "sn6[export]" in str(done.error)


def test_a_file_that_differs_is_not_written(sn6_command, tmp_path, monkeypatch):
    write_random(tmp_path / "w.safetensors", TINY)
    monkeypatch.setattr("sn6.exports.graph.activate", lambda outputs, activation: torch.sigmoid(outputs + 0.01))
    done = sn6_command("export", f"checkpoint={tmp_path}/w.safetensors", f"out={tmp_path}/m.onnx", f"window={WINDOW}")
    assert_fails(done, "failed", "checkpoint", "mask")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    "units",
    [Units(), Units("db", 0.5, -3.0), Units("power", 1e-4, 10.0), Units("amplitude", 2.0), Units("dn", 1.0, -83.0)],
)
def test_values_are_the_inverse_of_decibels(units):
    decibels = np.random.default_rng(0).normal(-10, 8, (2, 30, 30)).astype(np.float32)
    valid = np.ones((30, 30), bool)
    valid[3] = False
    values = units.from_decibels(decibels, valid)
    assert (np.isnan(values) == ~valid).all()
    again, _ = units.to_decibels(np.where(valid, values, np.float32(1)), valid)
    np.testing.assert_allclose(again[:, valid], decibels[:, valid], atol=1e-5)
