"""A model folder predicts as its run does, and says of it what metrics.json says."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
import yaml
from helpers.commands import assert_fails, read_metrics
from helpers.errors import user_error
from helpers.forked import python_m
from helpers.networks import random_network, write_network
from jsonschema import Draft7Validator
from pyproj import Transformer
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from sn6.checkpoints.metadata import parse_metadata
from sn6.checkpoints.weights_file import read_weights
from sn6.exports.exported_run import f1_interval, read_exported_run
from sn6.exports.hub import check_push, push_folder
from sn6.exports.model_folder import write_model_folder
from sn6.metrics.breakdown import spatial_blocks
from sn6.metrics.comparison import RunResult, mean_f1

ALLOWED = "allow=helpers.bright.FirstBand"
FILES = {"README.md", "config.yaml", "example.png", "item.json", "metrics.json", "model.onnx", "weights.safetensors"}
TABLES = {"test_tiles.csv", "validation_tiles.csv"}


@pytest.fixture(scope="module")
def folder(calibrated_run, tmp_path_factory):
    """The model folder of a run on simulated data, of which everything is known."""
    out = tmp_path_factory.mktemp("export") / "model"
    words = [f"checkpoint={calibrated_run}", ALLOWED, f"out={out}", "format=folder", "window=64"]
    done = python_m(["sn6.export", *words], out.parent)
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="module")
def item(folder):
    return json.loads((folder / "item.json").read_text())


def card_of(folder):
    """Return front matter and body of a card."""
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def table_below(body, title):
    """Return the first table of a section: rows as dicts by its header."""
    section = body.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_folder_has_all_files_and_nothing_else_is_left(folder):
    assert {path.name for path in folder.iterdir()} == FILES | TABLES
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_files_of_the_run_are_copied_as_they_are(folder, calibrated_run):
    for name in ("config.yaml", "metrics.json", *TABLES):
        assert (folder / name).read_bytes() == (calibrated_run / name).read_bytes()
    assert (folder / "example.png").read_bytes() == (calibrated_run / "figures/test_contact_sheet.png").read_bytes()
    weights, metadata = read_weights(folder / "weights.safetensors")
    best = torch.load(calibrated_run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert {f"network.{name}" for name in weights} == {name for name in best if name.startswith("network.")}
    assert all(torch.equal(tensor, best[f"network.{name}"]) for name, tensor in weights.items())
    assert metadata["footprints"]["threshold"] == read_metrics(calibrated_run)["operating_point"]["threshold"]


def test_it_predicts_as_the_run_without_the_network(
    sn6_command, folder, calibrated_run, bright_root, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    moved = shutil.copytree(folder, tmp_path / "moved")
    for name, checkpoint in (("a", calibrated_run), ("b", moved)):
        words = [f"checkpoint={checkpoint}", ALLOWED, f"root={bright_root}", "split=train", f"out={tmp_path}/{name}"]
        done = sn6_command("predict", *words)
        assert done.status == 0, done.err
    a, b = ((tmp_path / name / "proposals.csv").read_bytes() for name in ("a", "b"))
    assert a == b
    assert b"POLYGON ((" in a


# --- the card


def test_the_front_matter_is_that_of_the_hub(folder):
    from huggingface_hub import ModelCard

    metrics = read_metrics(folder)
    data = ModelCard((folder / "README.md").read_text()).data
    assert (data.library_name, data.pipeline_tag) == ("sn6", "image-segmentation")
    assert {"sar", "simulated-data", "onnx"} <= set(data.tags)
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert values == {key: metrics["test"][key] for key in ("f1", "precision", "recall")}
    assert {result.dataset_name.partition(", ")[2] for result in data.eval_results} == {metrics["test"]["scored_on"]}


def test_the_scores_of_the_card_are_those_of_metrics_json(folder):
    metrics, (_, body) = read_metrics(folder), card_of(folder)
    rows = table_below(body, "Scores")
    assert [row["scored on"].partition(",")[0] for row in rows] == [metrics["test"]["scored_on"], "validation tiles"]
    columns = {"F1": "f1", "precision": "precision", "recall": "recall", "pixel IoU": "iou"}
    columns |= {"F1 touching": "touching_f1", "F1 alone": "alone_f1"}
    for row, part in zip(rows, (metrics["test"], metrics["validation"]), strict=True):
        assert row["tiles"] == str(part["tiles"])
        assert {name: row[name] for name in columns} == {name: f"{part[key]:.3f}" for name, key in columns.items()}
    assert float(rows[1]["F1"]) > 0
    assert f"{metrics['test']['oracle']['f1']:.3f}" in body


def test_operating_point_and_input_of_the_card(folder):
    metrics, (_, body) = read_metrics(folder), card_of(folder)
    point = {row["key"]: row["value"] for row in table_below(body, "Operating point")}
    assert point.keys() >= {"threshold", "min_area"}
    assert point == {key: str(metrics["operating_point"][key]) for key in point}
    bands = table_below(body, "Input")
    assert [row["band"] for row in bands] == ["HH", "HV", "VH", "VV"]
    assert {(row["mean"], row["standard deviation"]) for row in bands} == {("20 dB", "5 dB")}  # of helpers.bright
    assert "rotate=true" in body
    assert "64 pixels" in body


def test_the_code_of_the_card_runs(folder, monkeypatch):
    """That with onnxruntime; its image of nodata has no buildings."""
    blocks = re.findall(r"```python\n(.*?)```", card_of(folder)[1], re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(next(block for block in blocks if "onnxruntime" in block), names)
    assert names["probability"].shape == (1, 1, 64, 64)
    assert (names["probability"] == 0).all()


def test_the_interval_is_that_of_the_comparison_of_runs(tmp_path):
    rng = np.random.default_rng(0)
    corners, counts = rng.uniform(0, 3000, (40, 2)), rng.integers(1, 9, (40, 3))
    head = "image_id,west,north,tp,fp,fn,touching_tp,touching_fp,touching_fn\n"
    rows = [
        f"t{number:02},{west},{north},{tp},{fp},{fn},0,0,0\n"
        for number, ((west, north), (tp, fp, fn)) in enumerate(zip(corners.tolist(), counts.tolist(), strict=True))
    ]
    (tmp_path / "test_tiles.csv").write_text(head + "".join(rows))
    sums = dict(zip(("tp", "fp", "fn"), counts.sum(axis=0).tolist(), strict=True))
    low, high = f1_interval(tmp_path / "test_tiles.csv", {"test": sums})
    resampled = mean_f1([RunResult({}, np.stack([counts] * 3))], spatial_blocks(corners, 450.0))[0]
    assert (low, high) == pytest.approx(np.quantile(resampled[1:], [0.025, 0.975]))
    assert low < resampled[0] < high
    assert f1_interval(tmp_path / "test_tiles.csv", {"test": sums | {"tp": 1}}) is None  # a table of other scores
    assert f1_interval(tmp_path / "none.csv", {"test": sums}) is None


@pytest.mark.parametrize(
    ("data_set", "is_simulated", "licence"),
    [
        ("sn6.datasets.spacenet6.SpaceNet6", False, "cc-by-sa-4.0"),
        ("sn6.datasets.spacenet6.SpaceNet6", True, "other"),
        ("sn6.datasets.folder.Folder", False, "other"),
    ],
)
def test_the_licence_is_that_of_the_data(folder, tmp_path, data_set, is_simulated, licence):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config, metrics = yaml.safe_load((copy / "config.yaml").read_text()), read_metrics(copy)
    config["data"]["dataset"]["_target_"] = data_set
    metrics["data"]["simulated"] = is_simulated
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "metrics.json").write_text(json.dumps(metrics))
    again = export(copy, tmp_path / "again")
    front, _ = card_of(again)
    assert front["license"] == licence
    assert ("simulated-data" in front["tags"]) == is_simulated
    assert json.loads((again / "item.json").read_text())["properties"]["license"].lower() == licence


def run_of(source):
    """Return what a folder with `weights.safetensors` says."""
    path = source / "weights.safetensors"
    return read_exported_run(path, parse_metadata(read_weights(path)[1], path, "checkpoint"), 1)


def export(source, out):
    """Write a model folder, with a text in place of the ONNX file."""
    write_model_folder(run_of(source), out, 64, lambda onnx: {"mask": float(onnx.write_text("no network"))})
    return out


def test_weights_without_a_run_make_a_folder_without_scores(tmp_path):
    write_network(tmp_path / "weights.safetensors", random_network())
    out = export(tmp_path, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"README.md", "item.json", "model.onnx", "weights.safetensors"}
    front, body = card_of(out)
    assert "model-index" not in front
    assert "example.png" not in body
    assert re.search(r"license: other", (out / "README.md").read_text())
    item = json.loads((out / "item.json").read_text())
    assert item["geometry"] is None  # nothing says where it was trained
    assert "bbox" not in item
    assert_valid(item)


# --- the STAC item


def assert_valid(item):
    """Assert that an item is valid by the schema of STAC 1.1 and by the classes of stac-model, both without a network.

    No package carries the JSON schema of the MLM extension.
    """
    from stac_model.schema import MLModelProperties

    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(key, Resource.from_contents(value)) for key, value in schemas.items()])
    schema = schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    assert [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(item)] == []
    MLModelProperties.model_validate(item["properties"])
    known = {f"mlm:{name}" for name in MLModelProperties.model_fields}
    assert {key for key in item["properties"] if key.startswith("mlm:")} <= known
    assert re.fullmatch(r"https://stac-extensions.github.io/mlm/v1\.\d+\.\d+/schema.json", item["stac_extensions"][0])


def test_the_item_is_valid_and_names_the_files_of_the_folder(item, folder):
    assert_valid(item)
    assert {asset["href"] for asset in item["assets"].values()} == {f"./{name}" for name in FILES - {"item.json"}}
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert [model["mlm:artifact_type"] for model in models] == ["safetensors", "onnx"]


def test_the_item_says_where_and_on_what_the_network_was_trained(item, folder):
    _, metadata = read_weights(folder / "weights.safetensors")
    to_degrees = Transformer.from_crs(metadata["training_crs"], "EPSG:4326", always_xy=True)
    hull = shapely.from_geojson(json.dumps(item["geometry"])).buffer(1e-6)
    for west, south, east, north in metadata["training_area"]:
        assert hull.contains(shapely.Point(to_degrees.transform(west, south)))
        assert hull.contains(shapely.Point(to_degrees.transform(east, north)))
    assert item["bbox"] == pytest.approx(hull.bounds, abs=2e-6)
    properties = item["properties"]
    assert properties["start_datetime"].startswith("2019-08-")
    assert properties["start_datetime"] < properties["end_datetime"]
    assert properties["mlm:total_parameters"] == 1  # FirstBand has one weight
    (one,) = properties["mlm:input"]
    assert one["bands"] == [band["name"] for band in properties["bands"]] == ["HH", "HV", "VH", "VV"]
    assert one["input"]["shape"] == [-1, 4, 64, 64]
    assert {(scale["mean"], scale["stddev"]) for scale in one["value_scaling"]} == {(20.0, 5.0)}
    assert [(output["name"], output["result"]["shape"]) for output in properties["mlm:output"]] == [
        ("mask", [-1, 1, 64, 64])
    ]
    assert properties["mlm:hyperparameters"]["threshold"] == read_metrics(folder)["operating_point"]["threshold"]


# --- wrong input


def test_a_folder_that_is_not_empty_is_refused_and_stays(sn6_command, folder, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    done = sn6_command("export", f"checkpoint={folder}", f"out={tmp_path}", "format=folder")
    assert_fails(done, "conflict", "out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_an_export_that_fails_leaves_nothing(folder, tmp_path):
    def fail(path):
        path.write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_model_folder(run_of(folder), tmp_path / "out", 64, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_metadata_is_refused(sn6_command, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    done = sn6_command("export", f"checkpoint={tmp_path}/other.pth", f"out={tmp_path}/out", "format=folder")
    assert_fails(done, "wrong_data", "checkpoint")
    assert not (tmp_path / "out").exists()


# --- push


class MockApi:
    """A mock of HfApi: records what it is asked to do."""

    calls: list  # of the last instance

    def __init__(self):
        MockApi.calls = []

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))
        return f"https://hub/{repo_id}"

    def upload_folder(self, repo_id, folder_path, **_):
        self.calls.append(("upload", repo_id, {path.name for path in Path(folder_path).iterdir()}))


class RefusingApi(MockApi):
    """A mock of HfApi that may not write."""

    def upload_folder(self, **_):
        raise OSError("403 Forbidden\nmore")


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_a_token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", MockApi)


def test_a_folder_is_pushed_after_it_was_written(sn6_command, calibrated_run, tmp_path, logged_in):
    words = [f"checkpoint={calibrated_run}", ALLOWED, f"out={tmp_path}/out", "format=folder", "window=64"]
    done = sn6_command("export", *words, "push=owner/name")
    assert done.status == 0, done.err
    create, upload = MockApi.calls
    assert create == ("create", "owner/name", {"private": True, "exist_ok": True})
    assert upload == ("upload", "owner/name", FILES | TABLES)
    assert "hf://owner/name" in (tmp_path / "out/README.md").read_text()
    assert push_folder(tmp_path / "out", "owner/name", private=False) == "https://hub/owner/name"
    assert MockApi.calls[0][2]["private"] is False


def test_a_push_that_is_refused_leaves_the_folder(folder, monkeypatch, logged_in):
    monkeypatch.setattr("huggingface_hub.HfApi", RefusingApi)
    with user_error("unavailable", key="push", value="owner/name"):
        push_folder(folder, "owner/name", private=True)


def test_no_token_and_no_network_are_found_out_before_the_work(sn6_command, calibrated_run, tmp_path, monkeypatch):
    words = [f"checkpoint={calibrated_run}", ALLOWED, f"out={tmp_path}/out", "format=folder", "push=owner/name"]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("sn6.exports.model_file.write_model", None)
    assert_fails(sn6_command("export", *words), "missing_value", "push", "owner/name")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_a_token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_fails(sn6_command("export", *words), "conflict", "push", "owner/name")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["name", "owner/name/file", "owner/name@v1", "owner/na me", "own--er/name", ""])
def test_malformed_repositories(name, logged_in):
    with user_error("invalid_value", key="push", value=name):
        check_push(name)


def test_push_is_for_folders(sn6_command, tmp_path):
    done = sn6_command("export", f"checkpoint={tmp_path}", f"out={tmp_path}/a.onnx", "push=owner/name")
    assert_fails(done, "conflict", "push", "owner/name")
