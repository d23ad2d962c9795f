"""`sn6 predict checkpoint=model.onnx` gives the footprints of the checkpoint that was exported."""

import json
import re
import shutil
import sys
from pathlib import Path

import geopandas
import numpy as np
import onnx
import pytest
import rasterio
import shapely
from helpers.commands import assert_fails
from helpers.errors import user_error
from helpers.networks import random_network, write_network
from onnx import TensorProto, helper

import sn6
from sn6.prediction.full_window import crop, enlarged
from sn6.prediction.networks import load_networks, model_id

WINDOW = 64
OVERLAP = "overlap=32"  # so that all windows of a tile of 128 pixels are full


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors", random_network())


@pytest.fixture(scope="module")
def model(weights, archive_root):
    """The network as ONNX; nobody changes the file."""
    from sn6.export import export

    export(weights, weights.with_name("model.onnx"), window=WINDOW, root=archive_root)
    return weights.with_name("model.onnx")


@pytest.fixture
def predicted(sn6_command, archive_root, tmp_path):
    """Footprints of the archive by checkpoint, window 64, on the CPU."""

    def predict(checkpoint, *overrides):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        fixed = [f"checkpoint={checkpoint}", f"root={archive_root}", f"out={out}", "device=cpu", "formats=[parquet]"]
        done = sn6_command("predict", *fixed, OVERLAP, "min_area=2", *overrides)
        assert done.status == 0, done.err
        return geopandas.read_parquet(out / "footprints.parquet")

    return predict


def assert_same(one, other):
    """The same number of footprints, and each with the same outline, confidence and model."""
    assert len(one) == len(other) > 10
    polygons, others = one.geometry.to_numpy(), other.geometry.to_numpy()
    common, total = (shapely.area(part(polygons, others)) for part in (shapely.intersection, shapely.union))
    assert (common / total).min() > 0.999
    np.testing.assert_allclose(one["confidence"], other["confidence"], atol=1e-4)
    assert (one["id"] == other["id"]).all()
    assert set(one["model"]) == set(other["model"])


@pytest.mark.parametrize("flips", ["false", "true"])
def test_footprints_are_those_of_the_checkpoint(flips, predicted, weights, model):
    expected = predicted(weights, f"window={WINDOW}", f"flips={flips}")
    assert_same(predicted(model, f"flips={flips}"), expected)


def test_an_ensemble_of_a_checkpoint_and_its_export_is_the_checkpoint(predicted, weights, model):
    expected = predicted(weights, f"window={WINDOW}")
    both = predicted(f"[{weights},{model}]", f"window={WINDOW}")
    assert_same(both.assign(model=""), expected.assign(model=""))


def test_weights_have_the_same_id_in_every_file(weights, model):
    assert model_id(load_networks([weights], ())) == model_id(load_networks([model], ()))


def test_python_loads_it(model, archive_root, tmp_path):
    """An image smaller than the window is padded, and footprints are inside of it."""
    source = next(archive_root.rglob("test_public/**/SAR-Intensity/*.tif"))
    with rasterio.open(source) as file:
        pixels = file.read()[:, 40:90, 30:75]
    predicted = sn6.load(model).predict(pixels, device="cpu", nodata=0, check_values=False, min_area=0)
    assert len(predicted) > 0
    assert shapely.box(0, -50, 45, 0).covers(predicted.geometry.to_numpy()).all()


@pytest.mark.parametrize(("height", "width"), [(150, 64), (40, 200), (30, 20)])
def test_a_short_window_is_enlarged_into_the_image(height, width):
    pixels = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    for start in (0, 96, height - 5, height - 70):
        region = slice(max(0, start), min(max(0, start) + WINDOW, height)), slice(max(0, width - WINDOW), width)
        if region[0].start >= height:
            continue
        rows, columns = enlarged(region, height, width, WINDOW)
        assert (rows.stop - rows.start, columns.stop - columns.start) == (min(WINDOW, height), min(WINDOW, width))
        assert rows.stop <= height
        assert columns.stop <= width
        outputs = np.full((1, WINDOW, WINDOW), np.nan, np.float32)
        outputs[:, : rows.stop - rows.start, : columns.stop - columns.start] = pixels[:, rows, columns]
        np.testing.assert_array_equal(crop(outputs, region, height, width), pixels[:, *region])


def test_the_example_of_the_documentation_runs(model, monkeypatch):
    """It needs neither sn6 nor torch."""
    text = (Path(__file__).parents[1] / "docs/export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import json\n.*?)```", text, re.DOTALL)
    assert "import sn6" not in code
    assert "torch" not in code
    monkeypatch.chdir(model.parent)
    given = {}
    exec(code, given)
    assert given["building"].shape == (WINDOW, WINDOW)
    assert not given["building"].any()


# --- invalid input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key"), [("window=96", "window"), ("scales=[1,1.25]", "scales"), ("precision=bf16-mixed", "precision")]
)
def test_what_is_fixed_in_the_file_is_refused(override, key, sn6_command, model, archive_root, tmp_path):
    fixed = [f"checkpoint={model}", f"root={archive_root}", f"out={tmp_path}/out", "device=cpu"]
    assert_fails(sn6_command("predict", *fixed, override), "conflict", key)
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_onnxruntime_does_not_know_is_refused(sn6_command, model, archive_root, tmp_path, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    done = sn6_command("predict", f"checkpoint={model}", f"root={archive_root}", f"out={tmp_path}/out", "device=cuda")
    assert_fails(done, "unavailable", "device", "cuda")


def changed(model, path, **export):
    """Copy a file with changes in the metadata about its export."""
    proto = onnx.load(model)
    for entry in proto.metadata_props:
        if entry.key == "sn6":
            values = json.loads(entry.value)
            entry.value = json.dumps(values | export)
    onnx.save(proto, path)
    return path


def foreign(path):
    """Write an ONNX file of another program."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_other_files_are_refused(model, tmp_path):
    deepness = changed(model, tmp_path / "d.onnx", export={"format": "deepness"})
    other_window = changed(model, tmp_path / "w.onnx", window=96)
    broken = tmp_path / "b.onnx"
    broken.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    text = tmp_path / "t.onnx"
    text.write_text("no graph")
    program = tmp_path / "p.pt2"
    program.write_bytes(b"PK")
    for path, kind in [
        (deepness, "wrong_data"),
        (changed(model, tmp_path / "e.onnx", export=None), "wrong_data"),
        (changed(model, tmp_path / "s.onnx", std=[0.0] * 4), "wrong_data"),
        (foreign(tmp_path / "f.onnx"), "wrong_data"),
        (program, "wrong_data"),
        (other_window, "mismatch"),
        (broken, "unreadable"),
        (text, "unreadable"),
    ]:
        with user_error(kind, "checkpoint", str(path)):
            sn6.load(path)


def test_code_of_its_metadata_has_to_be_allowed(model, tmp_path):
    path = changed(model, tmp_path / "m.onnx", footprints={"_target_": "other.Polygons"})
    with user_error("missing_value", "allow", ["other.Polygons"]):
        sn6.load(path)


def test_onnxruntime_is_named_where_it_is_missing(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with user_error("unavailable", "onnxruntime"):
        sn6.load(model)
