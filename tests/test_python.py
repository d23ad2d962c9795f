"""Use sn6 from Python: `sn6.load(run).predict(image)` and `sn6.evaluate(truth, predictions)`."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import yaml
from helpers.errors import user_error
from helpers.networks import random_network, write_network
from hydra.utils import get_object
from shapely.geometry import box

import sn6
from sn6.config.composition import CONF
from sn6.datasets.spacenet6 import SpaceNet6

ZONE = "EPSG:32631"
NOT_IN_PYTHON = (".pretrained", "polygon_f1.curve")  # downloads weights; a diagnostic figure of a run


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors", random_network())


@pytest.fixture(scope="module")
def image(archive_root):
    tile = SpaceNet6(archive_root).tiles("test_public", "SAR-Intensity")[0]
    return next(archive_root.rglob(f"*SAR-Intensity_{tile.image_id}.tif"))


def test_the_functions_are_imported_when_they_are_used():
    code = (
        "import sys, sn6; light = 'rasterio' not in sys.modules and 'torch' not in sys.modules; sn6.load; sn6.evaluate"
    )
    check = "; sys.exit(not (light and 'torch' not in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code + check]).returncode == 0
    with pytest.raises(AttributeError, match="nothing"):
        _ = sn6.nothing


def test_a_prediction_equals_the_file_of_the_command(weights, image, sn6_command, tmp_path, capsys):
    predicted = sn6.load(weights).predict(image, device="cpu", threshold=0.4)
    assert capsys.readouterr().out == ""
    options = (f"checkpoint={weights}", f"images={image}", f"out={tmp_path}/out", "device=cpu", "threshold=0.4")
    assert sn6_command("predict", *options).status == 0
    for file in ("footprints.geojson", "footprints.gpkg"):
        written = geopandas.read_file(tmp_path / "out" / file)
        assert (len(written) > 0, len(written), written.crs) == (True, len(predicted), predicted.crs)
        key = ["confidence", "area_m2"]
        one, two = (table.sort_values(key).reset_index(drop=True) for table in (written, predicted))
        assert one.geom_equals_exact(two, 1e-6).all()
        np.testing.assert_allclose(one[key], two[key], rtol=1e-6)
        assert (one["image_id"] == two["image_id"]).all()


def test_an_array_is_predicted_like_its_file(weights, image):
    model = sn6.load(str(weights))
    with rasterio.open(image) as file:
        pixels, transform, crs = file.read(), file.transform, file.crs
    expected = model.predict(str(image), device="cpu")
    placed = model.predict(pixels, transform, crs, device="cpu", nodata=0)
    assert placed.crs == expected.crs
    assert placed.geom_equals_exact(expected, 1e-6).all()
    unplaced = model.predict(pixels, device="cpu", nodata=0)
    assert unplaced.crs is None
    assert len(unplaced) == len(expected)


def test_wrong_options_are_named(weights, image, tmp_path):
    with user_error("not_found", "checkpoint"):
        sn6.load(tmp_path / "nothing")
    model = sn6.load(weights)
    with user_error("unknown_key", "treshold"):
        model.predict(image, treshold=0.4)
    with user_error("conflict", "transform"):
        model.predict(image, crs=ZONE)
    with user_error("invalid_value", "truth"):
        sn6.evaluate(geopandas.GeoDataFrame(geometry=[box(0, 0, 9, 9)]), "predictions.gpkg")


def test_tables_score_as_their_files(sn6_command, tmp_path):
    """Of three buildings one is matched, at IoU 0.8, and one proposal of two is false."""
    x, y = 500_000.0, 5_750_000.0
    buildings = [box(x, y, x + 10, y + 10), box(x + 30, y, x + 40, y + 10), box(x + 60, y, x + 70, y + 10)]
    truth = geopandas.GeoDataFrame(geometry=buildings, crs=ZONE)
    proposals = [box(x, y, x + 8, y + 10), box(x + 90, y, x + 99, y + 9)]
    predictions = geopandas.GeoDataFrame({"confidence": [0.9, 0.8]}, geometry=proposals, crs=ZONE)
    score = sn6.evaluate(truth, predictions)
    assert [score["overall"][key] for key in ("tp", "fp", "fn")] == [1, 1, 2]
    assert score["overall"]["f1"] == pytest.approx(0.4)
    assert sn6.evaluate(truth, predictions, iou=0.85)["overall"]["tp"] == 0
    truth.to_file(tmp_path / "truth.gpkg")
    predictions.to_file(tmp_path / "predictions.gpkg")
    files = f"truth={tmp_path}/truth.gpkg", f"proposals={tmp_path}/predictions.gpkg", f"out={tmp_path}/score.json"
    assert sn6_command("score", *files).status == 0
    written = json.loads((tmp_path / "score.json").read_text())
    assert sn6.evaluate(tmp_path / "truth.gpkg", str(tmp_path / "predictions.gpkg")) == written
    assert written["overall"] == score["overall"]


# --- the defaults of constructors are those of conf/


def of_our_own(node: Any, where: str) -> Any:
    """Each node of a config file with a `_target_` in sn6, and its dotted key."""
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("sn6."):
            yield where, node
        for key, value in node.items():
            yield from of_our_own(value, f"{where}.{key}")


def plain(value: Any) -> Any:
    """A value as YAML has it."""
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def defaults():
    """Each key of a group of conf/ that has a default in the signature too, with both values."""
    for path in sorted(Path(CONF).rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group in (".", "experiment", "scale", "scale/model", "sweep", "cluster"):
            continue
        for where, node in of_our_own(yaml.safe_load(path.read_text()), f"{group}/{path.stem}"):
            parameters = inspect.signature(get_object(node["_target_"])).parameters
            for key, value in node.items():
                parameter = parameters.get(key)
                if parameter is not None and parameter.default is not parameter.empty and "${" not in str(value):
                    yield f"{where}.{key}", plain(value), plain(parameter.default)


def test_defaults_of_constructors_are_those_of_the_config():
    """But for null in a model, which stands for the value of its weights, or else for the default."""
    different = {
        key: (value, default)
        for key, value, default in defaults()
        if value != default and not (key.startswith("model/") and value is None) and not key.endswith(NOT_IN_PYTHON)
    }
    assert different == {}
