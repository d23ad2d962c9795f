"""Each field of a checkpoint's metadata is checked when it is read, before anything of its size is made."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from helpers.commands import read_metrics, small_run
from helpers.errors import user_error
from helpers.networks import METADATA, random_network
from safetensors.torch import save_file

from sn6.checkpoints.initial_weights import read_initial_weights
from sn6.checkpoints.loading import read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.checkpoints.weights_file import write_weights
from sn6.models.unet import UNet
from sn6.prediction.networks import default_precision
from sn6.prediction.trained_network import load_network

VALID = copy.deepcopy(METADATA) | {
    "multiple": 32,
    "heads": {"mask": {"_target_": "sn6.targets.mask.Mask"}},
    "building_class": None,
    "building_fraction": 0.25,
    "window": 512,
    "window_overlap": 128,
    "flips": True,
    "precision": "bf16-mixed",
    "footprints": {"threshold": 0.4, "min_area": 33.5, "simplify": 0.0},
    "partition": "blocks",
    "fold": 3,
    "training_area": [[591550.0, 5749545.0, 592000.0, 5749995.0], [0, -1, 2, 3.5]],
    "training_crs": "EPSG:25833",
    "epoch": 7,
    "versions": {"sn6": "0.3.0", "timm": None},
    "score": {"f1": 0.25, "tp": 3},
    "selected_by": "val/f1",
}
MISSING = object()
WRONG = [
    *(((key,), MISSING) for key in ("network", "source", "mean", "std", "nodata")),
    *(((key,), value) for key in ("network", "source", "mean", "footprints") for value in (3, "text", [[]], None)),
    *((("heads",), value) for value in (3, {}, [], None)),
    *(
        (("heads", "mask"), value)
        for value in (MISSING, 3, None, {}, {"_target_": 3}, {"_target_": "sn6.targets.Mask"})
    ),
    *(
        (("heads", "mask"), {"_target_": f"sn6.targets.{name}"})
        for name in ("boundary.boundary_term", "edge.InnerEdge")
    ),
    (("heads", "contact"), {"_target_": "sn6.targets.boundary.boundary_term"}),
    (("heads", "contact"), {"radius": 2.0}),
    (("heads", "mask"), {"_target_": "sn6.targets.mask.Mask", "radius": 1.0}),
    (("heads", "contact"), {"_target_": "sn6.targets.contact.Contact"}),  # the network has one channel
    (("network", "_target_"), MISSING),
    (("network", "_target_"), 3),
    (("network", "_target_"), "sn6.models.unet"),
    (("network", "_target_"), "sn6.files.write_text"),
    (("network", "in_channels"), 3),
    (("network", "width"), "4"),
    (("network", "width"), 0),
    (("network", "width"), 3),
    (("network", "width"), -4),
    (("network", "width"), 4.0),
    (("network", "encoder"), "vgg99"),
    (("network", "encoder"), "${oc.env:HOME}"),
    (("network", "unknown"), 1),
    (("network", "classes"), [1]),
    (("source", "product"), "SAR"),
    (("source", "product"), MISSING),
    *((("source", "bands"), value) for value in ([], [0, 1, 2, 3], [1, 2, 3, 5], [1, 2, 3], [1.0, 2, 3, 4], "1234")),
    (("source", "orient"), 1),
    (("source", "orient"), MISSING),
    *((("source", "min_area"), value) for value in (-1.0, math.nan, math.inf, "20")),
    *(((key,), [1.0] * 3) for key in ("mean", "std")),
    *(((key,), [1.0, 1.0, 1.0, value]) for key in ("mean", "std") for value in (math.nan, math.inf, "1", None, True)),
    *((("std",), [1.0, 1.0, 1.0, value]) for value in (0.0, -1.0)),
    *((("nodata",), value) for value in ("mean", 0, None)),
    *((("multiple",), value) for value in (0, -32, 5000, 32.5, "32", True)),
    *((("building_class",), value) for value in (-1, 1, 0.5)),
    *((("building_fraction",), value) for value in (-0.1, 1.1, math.nan)),
    *((("window",), value) for value in (0, -1, 128, 10**5, 512.5, "512")),
    *((("window_overlap",), value) for value in (-1, 512, 600, 1.5)),
    *((("precision",), value) for value in ("8-bit", "16-true", 7)),
    *((("footprints", "threshold"), value) for value in (0, 1, -0.7, 1.5, math.nan, "0.5", None)),
    (("footprints", "_target_"), "sn6.footprints.Footprints"),
    (("footprints", "_target_"), "sn6.footprints.distance.DistanceWatershed"),  # needs a map that the network lacks
    (("footprints", "_target_"), 3),
    (("footprints", "seed"), 0.5),
    *((("footprints", key), value) for key in ("min_area", "simplify") for value in (-1, math.inf, math.nan)),
    *((("partition",), value) for value in ("rows", 5)),
    *((("fold",), value) for value in (-1, 1.5, "4")),
    *((("training_area",), value) for value in ([[0, 0, 1]], [[0, 0, 1, math.nan]], [[0, 0, math.inf, 1]], [3], "a")),
    *((("training_crs",), value) for value in (None, 3, "", "EPSG:0", "EPSG:99999", "+proj=longlat", "/etc/passwd")),
    *((("training_area",), [[0, 0, 1, 1], value]) for value in ([1, 0, 1, 1], [2, 0, 1, 1], [0, 1, 1, 0])),
    *((("epoch",), value) for value in (-1, 0.5, "1")),
    (("versions",), ["sn6"]),
    (("score",), {"f1": math.nan}),
]


@pytest.fixture(scope="module")
def network():
    return random_network()


def changed(keys, value):
    """Return the metadata with another value, or without it."""
    metadata = copy.deepcopy(VALID)
    node = metadata
    for key in keys[:-1]:
        node = node[key]
    if value is MISSING:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    return metadata


def test_all_fields_are_read(network, tmp_path):
    write_weights(tmp_path / "a.safetensors", network.state_dict(), VALID)
    weights, metadata = read_checkpoint(tmp_path / "a.safetensors", "checkpoint")
    read = json.loads(json.dumps(metadata.model_dump()))
    product = read["source"].pop("product")  # of the name alone, as in older files
    assert read == VALID | {"source": {key: value for key, value in VALID["source"].items() if key != "product"}}
    assert (product["name"], product["bands"], product["pixel_size"]) == (
        "SAR-Intensity",
        ["HH", "HV", "VH", "VV"],
        0.5,
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    trained = load_network(tmp_path / "a.safetensors")
    assert (trained.source.bands, trained.statistics.mean[0], trained.statistics.std[3]) == ((1, 2, 3, 4), 27.5, 13.0)
    assert (trained.multiple, trained.window, trained.precision) == (32, (512, 128), "bf16-mixed")
    assert (trained.polygonizer.threshold, trained.polygonizer.min_area) == (0.4, 33.5)


@pytest.mark.parametrize(("keys", "value"), WRONG)
def test_a_wrong_or_missing_field_is_an_error_wherever_weights_are_read(network, tmp_path, keys, value):
    path = tmp_path / "a.safetensors"
    write_weights(path, network.state_dict(), changed(keys, value))
    with user_error("wrong_data", "checkpoint", str(path)) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    if (
        value != "sn6.files.write_text" and value != "sn6.models.unet"
    ):  # the hand-off compares them with its own network
        with user_error("wrong_data", "model.weights", str(path)):
            read_initial_weights(str(path), "model.weights", FINAL_WEIGHTS)


@pytest.mark.parametrize("text", ["3", '"text"', "[1]", "{", "null{", "[" * 200_000, '{"mean": ' * 100_000])
def test_metadata_that_are_no_table(network, tmp_path, text):
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path, {"sn6": text})
    with pytest.raises(Exception) as caught:  # noqa: PT011
        load_network(path)
    assert type(caught.value).__name__ == "UserError"


def test_older_files_lack_what_came_later(network, tmp_path):
    needed = {key: VALID[key] for key in ("network", "source", "mean", "std", "nodata")}
    write_weights(tmp_path / "a.safetensors", network.state_dict(), needed | {"of_the_future": [1]})
    trained = load_network(tmp_path / "a.safetensors")
    assert (trained.multiple, trained.window, trained.precision) == (1, None, "32-true")
    assert trained.polygonizer.threshold == 0.5


HUGE = [
    (("network", "width"), 65_536),
    (("network", "width"), 10**9),
    (("network", "width"), 10**30),
    (("network", "classes"), 60_000),
    (("network", "classes"), 10**9),
    (("network", "in_channels"), 10**6),
    (("source", "bands"), [1] * 10**6),
    (("mean",), [1.0] * 10**6),
    (("window",), 10**9),
    (("multiple",), 10**9),
    (("network", "extra"), [[0] * 1000] * 1000),
]
READ = """
import sys, time
from pathlib import Path
from sn6.prediction.networks import default_precision
from sn6.prediction.trained_network import load_network
from sn6.errors import UserError
import sn6.models.ternausnet, sn6.models.unet, timm.models.vgg, resource
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.monotonic()
    try:
        load_network(Path(path))
    except UserError:
        print(time.monotonic() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024)
"""


def test_a_declared_size_asks_for_no_memory_and_no_time(network, tmp_path):
    paths = []
    for number, (keys, value) in enumerate(HUGE):
        paths.append(tmp_path / f"{number}.safetensors")
        write_weights(paths[-1], network.state_dict(), changed(keys, value))
    for number, (key, value) in enumerate((("depth", 10**9), ("depth", 60_000), ("depth", 10), ("width", 60_000))):
        paths.append(tmp_path / f"unet{number}.safetensors")
        options = {
            "_target_": "sn6.models.unet.UNet",
            "in_channels": 4,
            "classes": 1,
            "width": 4,
            "depth": 2,
            key: value,
        }
        write_weights(paths[-1], UNet(4, 1, width=4, depth=2).state_dict(), VALID | {"network": options | {key: value}})
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True, timeout=100
    ).stdout.splitlines()
    assert len(done) == len(paths)  # all were refused
    for line, path in zip(done, paths, strict=True):
        seconds, megabytes = map(float, line.split())
        assert seconds < 10, path
        assert megabytes < 400, path  # with the megabytes of the metadata themselves


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pth"])
def test_weights_that_are_not_finite_are_an_error(network, tmp_path, value, suffix):
    weights, path = {name: tensor.clone() for name, tensor in network.state_dict().items()}, tmp_path / f"a{suffix}"
    weights["head.bias"][0] = value
    if suffix == ".safetensors":
        write_weights(path, weights, VALID)
    else:
        torch.save(
            weights if suffix == ".pth" else {"state_dict": {f"network.{k}": v for k, v in weights.items()}}, path
        )
    with user_error("wrong_data", "model.weights", str(path)) as caught:
        read_checkpoint(path, "model.weights")
    assert "head.bias" in str(caught.value)


@pytest.mark.parametrize("tensor", [torch.zeros(1).expand(10**6, 10**6), torch.empty(9, device="meta")])
def test_a_tensor_that_is_larger_than_its_file_is_an_error(network, tmp_path, tensor):
    path = tmp_path / "a.pth"
    torch.save(network.state_dict() | {"head.weight": tensor}, path)
    with user_error("wrong_data", "model.weights", str(path)):
        read_checkpoint(path, "model.weights")


@pytest.mark.parametrize("config", [None, 3, {"model": 3}, {"model": {}}, {"model": None}, {"callbacks": 3}])
def test_a_checkpoint_whose_config_is_broken(network, tmp_path, config):
    path = tmp_path / "a.ckpt"
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    data = {key: VALID[key] for key in ("source", "mean", "std", "nodata")}
    torch.save({"state_dict": state, "hyper_parameters": {"config": config}, "TileDataModule": data}, path)
    with user_error("wrong_data", "checkpoint", str(path)):
        load_network(path)


def test_both_writers_fill_in_all_fields(sn6_run, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}", "data=eo", "window=64", "window_overlap=16", "flips=true")
    assert done.status == 0, done.err
    folder = tmp_path / "outputs/it"
    read = [read_checkpoint(folder / name, "checkpoint") for name in ("checkpoints/best.ckpt", "weights.safetensors")]
    (weights, checkpoint), (same, file) = read
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert isinstance(checkpoint, CheckpointMetadata)
    assert checkpoint == file.model_copy(update={"versions": {}})
    assert file.versions.keys() >= {"sn6", "torch", "python"}
    empty = {name for name, value in file.model_dump().items() if value in (None, {}, ())}
    assert empty == {"building_class"}  # of several classes
    metrics = read_metrics(folder)
    assert file.flips
    assert (file.fold, file.epoch, len(file.training_area)) == (4, 0, metrics["data"]["tiles"]["train"])
    assert file.score["f1"] == metrics["validation"]["f1"]


@pytest.mark.parametrize(
    ("key", "values"), [("std", [1, 1, 0, 1]), ("std", [1, 1, -2, 1]), ("mean", [1, 1, ".inf", 1])]
)
def test_statistics_of_the_config_are_checked_as_those_of_a_file(sn6_run, archive_root, key, values):
    others = "data.std=[1,1,1,1]" if key == "mean" else "data.mean=[1,1,1,1]"
    done = sn6_run(*small_run(), f"data.root={archive_root}", others, f"data.{key}=[{values}]")
    assert (done.status, done.error.kind, done.error.key) == (1, "invalid_value", f"data.{key}"), done.err


@pytest.mark.parametrize(
    ("trained", "capabilities", "expected"),
    [
        ("bf16-mixed", {"avx512_bf16": True, "cpu_name": "AMD EPYC 9R14"}, "bf16-mixed"),
        ("bf16-mixed", {"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "32-true"),
        ("bf16-mixed", {"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, "bf16-mixed"),
        ("bf16-mixed", {"avx2": True}, "32-true"),
        ("16-mixed", {"avx512_bf16": True}, "32-true"),
        ("32-true", {"avx2": True}, "32-true"),
    ],
)
def test_a_cpu_predicts_in_bfloat16_only_where_that_is_faster(
    network, tmp_path, monkeypatch, trained, capabilities, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    write_weights(tmp_path / "a.safetensors", network.state_dict(), VALID | {"precision": trained})
    assert default_precision("cpu", load_network(tmp_path / "a.safetensors")) == expected
