"""Weights of an EO network into a SAR network: what is loaded, adapted and initialised, and with which checks."""

import csv
import shutil

import pytest
import torch
import yaml
from helpers.commands import assert_fails, read_metrics, small_run
from helpers.errors import user_error
from torch import nn

from sn6.checkpoints.architecture import build_network
from sn6.checkpoints.transfer import relative_change, transfer_weights
from sn6.checkpoints.weights_file import read_weights, write_weights
from sn6.models.fcn import FCN8s
from sn6.models.resunet import ResUNet
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet

RADAR = ("HH", "HV", "VH", "VV")


def transfer(source, target, before=("R", "G", "B"), after=RADAR, adapt=None, reset_head=False):
    """The report and the target's weights after the transfer."""
    rows = transfer_weights(
        target, source.state_dict(), (before, after), adapt, reset_head, "w.safetensors", "callbacks.sar_handoff"
    )
    return rows, target.state_dict()


@pytest.mark.parametrize("network", [TernausNet, UNet, FCN8s, ResUNet])
def test_an_exact_fit_loads_every_tensor(network):
    source, target = network(4, width=4), network(4, width=4)
    rows, weights = transfer(source, target, RADAR, RADAR)
    assert [row.tensor for row in rows] == list(target.state_dict())
    assert {row.action for row in rows} == {"loaded"}
    assert all(torch.equal(weights[name], tensor) for name, tensor in source.state_dict().items())


@pytest.mark.parametrize("adapt", ["mean", "repeat"])
def test_three_bands_into_four_keep_the_response_to_equal_bands(adapt):
    source, target = TernausNet(3, width=4), TernausNet(4, width=4)
    rows, weights = transfer(source, target, adapt=adapt)
    (adapted,) = [row for row in rows if row.action != "loaded"]
    assert adapted.tensor == "encoder.0.weight"
    assert adapted.action == "adapted"
    assert adapted.rule.startswith(adapt)
    assert (adapted.source_shape, adapted.shape) == ((4, 3, 3, 3), (4, 4, 3, 3))
    before, after = source.state_dict()["encoder.0.weight"], weights["encoder.0.weight"]
    if adapt == "mean":
        assert torch.allclose(after.sum(dim=1), before.sum(dim=1), atol=1e-6)
    else:
        assert torch.allclose(after[:, 3], after[:, 0])  # the first band comes round again
        assert torch.allclose(after[:, 1], before[:, 1] * 3 / 4)


def test_bands_by_name_keep_their_filters_and_new_ones_start_without_effect():
    source, target = UNet(4, width=4), UNet(5, width=4)
    names = (("B", "R", "R", "G"), ("B", "G", "R", "NIR", "PAN"))
    _, weights = transfer(source, target, *names, adapt="names")
    before, after = (w["encoder.0.0.weight"] for w in (source.state_dict(), weights))
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1], before[:, 3])
    assert torch.allclose(after[:, 2], before[:, 1] + before[:, 2])
    assert not after[:, 3:].any()
    with user_error("conflict", "callbacks.sar_handoff.adapt", "names"):
        transfer(source, UNet(4, width=4), names[0], RADAR, adapt="names")


def test_other_bands_without_a_rule_are_refused():
    with user_error("missing_value", "callbacks.sar_handoff.adapt"):
        transfer(TernausNet(3, width=4), TernausNet(4, width=4))


def test_a_missing_and_an_extra_tensor_are_named_and_nothing_is_loaded():
    source, target = TernausNet(4, width=4), TernausNet(4, width=4)
    start = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    weights = source.state_dict()
    weights.pop("center.0.bias")
    weights["edge.weight"] = torch.zeros(1)
    with user_error("mismatch") as caught:
        transfer_weights(target, weights, (RADAR, RADAR), None, False, "w.safetensors", "model")
    assert "center.0.bias" in str(caught.value)
    assert "edge.weight" in str(caught.value)
    assert all(torch.equal(tensor, start[name]) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("network", [TernausNet, UNet, FCN8s, ResUNet])
def test_a_head_of_other_classes_keeps_its_initialisation_with_reset_head(network):
    source, target = network(4, classes=3, width=4), network(4, classes=1, width=4)
    with user_error("mismatch"):
        transfer(source, target, RADAR, RADAR)
    rows, _ = transfer(source, target, RADAR, RADAR, reset_head=True)
    initialised = {row.tensor.split(".")[0] for row in rows if row.action == "initialised"}
    assert initialised == set(network.head_parts)
    assert {row.rule for row in rows if row.action == "initialised"} == {"reset_head"}


def test_relative_change_of_a_tensor():
    start = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2), "c": torch.ones(1)}
    end = {"a": torch.tensor([3.0, 4.5]), "b": torch.zeros(2), "c": torch.ones(1)}
    assert relative_change(start, end) == {"a": pytest.approx(0.1), "b": 0.0, "c": 0.0}


def test_a_file_of_weights_is_read_back_and_a_broken_one_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.arange(3.0)}, {"fold": 4})
    weights, metadata = read_weights(path)
    assert torch.equal(weights["a"], torch.arange(3.0))
    assert metadata == {"fold": 4}
    path.write_bytes(path.read_bytes()[:-4])
    with user_error("unreadable", path):
        read_weights(path)


# --- by the command line


@pytest.fixture(scope="module")
def eo_run(archive_root, tmp_path_factory):
    """The folder of a finished EO run."""
    from helpers.stopping import run_and_stop

    folder = tmp_path_factory.mktemp("eo")
    assert run_and_stop([*small_run(data="eo"), f"data.root={archive_root}"], folder) == 0
    return folder / "outputs/it"


def sar_run(archive_root, weights, *more):
    return [*small_run(), f"data.root={archive_root}", f"callbacks.sar_handoff.weights={weights}", *more]


def read_report(folder):
    with (folder / "handoff.csv").open() as file:
        return list(csv.DictReader(file))


def test_weights_and_metadata_of_an_eo_run(eo_run):
    weights, metadata = read_weights(eo_run / "weights.safetensors")
    best = torch.load(eo_run / "checkpoints/best.ckpt", weights_only=True)
    assert all(torch.equal(best["state_dict"][f"network.{name}"], tensor) for name, tensor in weights.items())
    assert metadata["network"]["width"] == 4
    source = metadata["source"]
    assert source | {"product": source["product"]["name"]} == {
        "product": "PS-RGB",
        "bands": [3, 1, 1, 2],
        "orient": True,
        "min_area": 20.0,
    }
    assert len(metadata["mean"]) == len(metadata["std"]) == 4
    metrics = read_metrics(eo_run)
    assert len(metadata["training_area"]) == metrics["data"]["tiles"]["train"]
    assert metadata["score"]["f1"] == metrics["validation"]["f1"]
    assert metadata["epoch"] == metrics["validation"]["epoch"]
    assert {"sn6", "torch", "lightning", "timm", "python"} <= set(metadata["versions"])
    sizes = [(eo_run / name).stat().st_size for name in ("weights.safetensors", "checkpoints/best.ckpt")]
    assert sizes[0] < sizes[1] / 2  # no optimizer in it


@pytest.mark.parametrize("source", ["", "weights.safetensors", "checkpoints/best.ckpt"])
def test_a_sar_run_starts_from_a_folder_a_file_and_a_checkpoint(sn6_run, archive_root, eo_run, tmp_path, source):
    """With a learning rate of zero it ends where it started: at the EO weights."""
    done = sn6_run(*sar_run(archive_root, eo_run / source, "optimizer.lr=0.0", "optimizer.weight_decay=0.0"))
    assert done.status == 0, done.err
    weights, _ = read_weights(eo_run / "weights.safetensors")
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last[f"network.{name}"], tensor) for name, tensor in weights.items())
    rows = read_report(tmp_path / "outputs/it")
    assert [row["tensor"] for row in rows] == [name.removeprefix("network.") for name in last if "network" in name]
    assert {row["action"] for row in rows} == {"loaded"}
    assert {row["relative_change"] for row in rows} == {"0.0000"}


def test_the_weights_decide_the_width_and_no_imagenet_weights_are_fetched(sn6_run, archive_root, eo_run, tmp_path):
    """The EO run has 4 filters, for which ImageNet weights would be refused."""
    open_keys = [line for line in sar_run(archive_root, eo_run) if not line.startswith(("model.width", "model.pre"))]
    done = sn6_run(*open_keys)
    assert done.status == 0, done.err
    model = yaml.safe_load((tmp_path / "outputs/it/config.yaml").read_text())["model"]
    assert (model["width"], model["encoder"], model["pretrained"]) == (4, "vgg11", None)
    by_model = [line.replace("callbacks.sar_handoff.weights", "model.weights") for line in open_keys]
    assert_fails(sn6_run(*by_model, "name=model"), "missing_value", "model.adapt")  # they are of optical images
    assert sn6_run(*by_model, "name=model", "model.adapt=mean").status == 0
    by_file = {"weights": None, "adapt": None}
    assert yaml.safe_load((tmp_path / "outputs/model/config.yaml").read_text())["model"] | by_file == model
    assert_fails(sn6_run(*open_keys, "name=wide", "model.width=8"), "mismatch", "model.width", 8)
    both = sn6_run(*open_keys, "name=both", f"model.weights={eo_run}")
    assert_fails(both, "conflict", "callbacks.sar_handoff.weights")
    assert not (tmp_path / "outputs/wide").exists()
    assert not (tmp_path / "outputs/both").exists()


def test_parts_that_a_network_does_not_have(sn6_run, archive_root, tmp_path):
    plain = ("model._target_=torch.nn.Conv2d", "+model.out_channels=1", "+model.kernel_size=1")
    dropped = [f"~model.{key}" for key in ("width", "encoder", "pretrained", "weights_file")]
    short = [line for line in small_run() if not line.startswith(("model.width", "model.pretrained"))]
    run = [*short, *plain, *dropped, f"data.root={archive_root}"]
    assert sn6_run(*run, "name=first").status == 0
    weights = f"callbacks.sar_handoff.weights={tmp_path}/outputs/first"
    for option in ("reset_head=true", "encoder_lr=0.1", "freeze_encoder_epochs=1"):
        key = "reset_head" if option == "reset_head=true" else "encoder_lr"
        done = sn6_run(*run, weights, f"callbacks.sar_handoff.{option}")
        assert_fails(done, "conflict", f"callbacks.sar_handoff.{key}")


def test_no_pretrained_weights_are_fetched_that_others_replace(monkeypatch):
    def connect(*_):
        pytest.fail("something was downloaded")

    monkeypatch.setattr("socket.socket.connect", connect)
    smp = {"_target_": "segmentation_models_pytorch.Unet", "encoder_name": "resnet18"}  # its default is imagenet
    own = {"_target_": "sn6.models.ternausnet.TernausNet", "width": 4, "pretrained": "imagenet"}
    for options in (smp, own):
        network = build_network(options, fetch_pretrained=False)
        assert sum(parameter.numel() for parameter in network.parameters()) > 0
    with user_error("conflict"):
        build_network(own, fetch_pretrained=True)


def test_a_frozen_encoder_stays_and_the_rest_learns(sn6_run, archive_root, eo_run, tmp_path):
    freeze = ("callbacks.sar_handoff.freeze_encoder_epochs=1", "optimizer.lr=0.01")
    assert sn6_run(*sar_run(archive_root, eo_run, *freeze)).status == 0
    changes = {row["tensor"]: float(row["relative_change"]) for row in read_report(tmp_path / "outputs/it")}
    assert all(change == 0 for name, change in changes.items() if name.startswith("encoder"))
    assert all(change > 0 for name, change in changes.items() if name.startswith("head"))


def test_the_encoder_has_its_own_learning_rate(sn6_run, archive_root, eo_run, tmp_path):
    rates = ("callbacks.sar_handoff.encoder_lr=0.1", "optimizer.lr=0.01")
    assert sn6_run(*sar_run(archive_root, eo_run, *rates)).status == 0
    optimizer = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert [group["lr"] for group in optimizer["param_groups"]] == pytest.approx([0.01, 0.001])
    count = len(list(TernausNet(4, width=4).encoder.parameters()))
    assert len(optimizer["param_groups"][1]["params"]) == count


def test_weights_whose_training_area_overlaps_the_validation_tiles_are_refused(sn6_run, archive_root, eo_run):
    run = sar_run(archive_root, eo_run, "data.fold=0")
    assert_fails(sn6_run(*run), "leakage", "callbacks.sar_handoff.weights", str(eo_run / "weights.safetensors"))
    assert sn6_run(*run, "callbacks.sar_handoff.allow_leakage=true").status == 0


class Pickled(nn.Module):
    """What torch.save writes with its code's name in it."""


def test_files_that_hold_no_usable_weights(sn6_run, archive_root, eo_run, tmp_path):
    key = "callbacks.sar_handoff.weights"
    assert_fails(sn6_run(*sar_run(archive_root, tmp_path / "none.ckpt")), "not_found", key)
    (tmp_path / "empty").mkdir()
    assert_fails(sn6_run(*sar_run(archive_root, tmp_path / "empty")), "not_found", key)
    torch.save(Pickled(), tmp_path / "pickled.pt")
    done = sn6_run(*sar_run(archive_root, tmp_path / "pickled.pt"))
    assert done.error is not None
    assert "pickled.pt" in str(done.error)
    truncated = shutil.copy(eo_run / "checkpoints/best.ckpt", tmp_path / "cut.ckpt")
    truncated.write_bytes(truncated.read_bytes()[:5000])
    assert_fails(sn6_run(*sar_run(archive_root, truncated)), "unreadable")
    other = [line.replace("model=ternausnet", "model=unet") for line in sar_run(archive_root, eo_run)]
    other = [line for line in other if "pretrained" not in line]
    assert_fails(sn6_run(*other), "mismatch")


STAGES = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"


def test_overrides_of_a_callback_go_to_the_stage_that_has_it(sn6_run, archive_root, tmp_path, monkeypatch):
    folder = tmp_path / "b (1), c=d"  # and a folder with characters of Hydra's grammar in its name
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = sn6_run(*small_run(), f"data.root={archive_root}", STAGES, "callbacks.sar_handoff.encoder_lr=0.5")
    assert done.status == 0, done.err
    configs = [yaml.safe_load((folder / f"outputs/it/{stage}/config.yaml").read_text()) for stage in ("sar", "eo")]
    assert configs[0]["callbacks"]["sar_handoff"]["encoder_lr"] == 0.5
    assert "sar_handoff" not in configs[1]["callbacks"]
    joint = read_metrics(folder / "outputs/it")
    assert joint["stages"]["eo"] == read_metrics(folder / "outputs/it/eo")
    assert joint["test"] == read_metrics(folder / "outputs/it/sar")["test"]


def test_overrides_that_do_not_fit_stages_are_refused_before_the_first_one(sn6_run, archive_root, tmp_path):
    run = (*small_run(), f"data.root={archive_root}", STAGES)
    for override in ("data.product=PS-RGB", "data.bands=[1,2,3,3]", "data=eo"):
        assert_fails(sn6_run(*run, override), "conflict", override.partition("=")[0])
    assert_fails(sn6_run(*run, "data.crops=3"), "unknown_key", "data.crops")
    assert_fails(sn6_run(*run, "stages.eo=['data=eo','data.crops=3']"), "unknown_key", "data.crops")
    assert not (tmp_path / "outputs/it/eo").exists()


def test_stages_of_different_networks_are_refused_before_the_first_one(sn6_run, archive_root, tmp_path):
    stages = "stages={eo:['data=eo','model.width=6'],sar:['data=sar','model.width=4']}"
    run = [line for line in small_run() if not line.startswith("model.width")]
    assert_fails(sn6_run(*run, f"data.root={archive_root}", stages), "conflict", "model.width", 4)
    assert not (tmp_path / "outputs/it/eo").exists()
