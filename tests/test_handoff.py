"""From an optical network to a radar one: what is loaded, what is adapted and how, what is left."""

import csv
import json
import shutil

import pytest
import torch
from helpers.commands import small_run
from torch import nn

from sn6.checkpoints.transfer import relative_change, transfer_weights
from sn6.checkpoints.weights_file import read_weights, write_weights
from sn6.errors import UserError
from sn6.models.fcn import FCN8s
from sn6.models.ternausnet import TernausNet
from sn6.models.unet import UNet

RADAR = ("HH", "HV", "VH", "VV")


def transfer(source, target, before=("R", "G", "B"), after=RADAR, adapt=None, reset_head=False):
    """The report and the target's weights after the hand-off."""
    rows = transfer_weights(
        target, source.state_dict(), (before, after), adapt, reset_head, "w.safetensors", "callbacks.sar_handoff"
    )
    return rows, target.state_dict()


@pytest.mark.parametrize("network", [TernausNet, UNet, FCN8s])
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
    with pytest.raises(UserError, match="finds no band of the same name: B, R, R, G before, HH, HV, VH, VV now"):
        transfer(source, UNet(4, width=4), names[0], RADAR, adapt="names")


def test_other_bands_without_a_rule_are_refused():
    with pytest.raises(
        UserError, match=r"first layer for 3 bands, the network for 4; choose .*adapt=mean\|repeat\|names"
    ):
        transfer(TernausNet(3, width=4), TernausNet(4, width=4))


def test_a_missing_and_an_extra_tensor_are_named_and_nothing_is_loaded():
    source, target = TernausNet(4, width=4), TernausNet(4, width=4)
    start = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    weights = source.state_dict()
    weights.pop("center.0.bias")
    weights["edge.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"does not fit TernausNet: missing: center.0.bias; unknown: edge.weight"):
        transfer_weights(target, weights, (RADAR, RADAR), None, False, "w.safetensors", "model")
    assert all(torch.equal(tensor, start[name]) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("network", [TernausNet, UNet, FCN8s])
def test_a_head_of_other_classes_is_left_where_that_is_asked_for(network):
    source, target = network(4, classes=3, width=4), network(4, classes=1, width=4)
    with pytest.raises(UserError, match="of another shape"):
        transfer(source, target, RADAR, RADAR)
    rows, _ = transfer(source, target, RADAR, RADAR, reset_head=True)
    left = {row.tensor.split(".")[0] for row in rows if row.action == "initialised"}
    assert left == set(network.head_parts)
    assert {row.rule for row in rows if row.action == "initialised"} == {"reset_head"}


def test_how_far_a_layer_moved():
    start = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2), "c": torch.ones(1)}
    end = {"a": torch.tensor([3.0, 4.5]), "b": torch.zeros(2), "c": torch.ones(1)}
    assert relative_change(start, end) == {"a": pytest.approx(0.1), "b": 0.0, "c": 0.0}


def test_a_portable_file_comes_back_and_a_broken_one_is_told(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.arange(3.0)}, {"fold": 4})
    weights, card = read_weights(path)
    assert torch.equal(weights["a"], torch.arange(3.0))
    assert card == {"fold": 4}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"w\.safetensors cannot be read, it is broken or cut short"):
        read_weights(path)


# --- by the command line


@pytest.fixture(scope="module")
def optical(archive_root, tmp_path_factory):
    """A finished optical run."""
    from helpers.stopping import run_and_stop

    folder = tmp_path_factory.mktemp("optical")
    assert run_and_stop([*small_run(data="eo"), f"data.root={archive_root}"], folder) == 0
    return folder / "outputs/it"


def radar(archive_root, optical, *more):
    return [*small_run(), f"data.root={archive_root}", f"callbacks.sar_handoff.weights={optical}", *more]


def test_what_the_optical_run_leaves(optical):
    weights, card = read_weights(optical / "weights.safetensors")
    best = torch.load(optical / "checkpoints/best.ckpt", weights_only=True)
    assert all(torch.equal(best["state_dict"][f"network.{name}"], tensor) for name, tensor in weights.items())
    assert card["network"]["width"] == 4
    assert card["source"] == {"product": "PS-RGB", "bands": [3, 1, 1, 2], "orient": True, "min_area": 20.0}
    assert len(card["mean"]) == len(card["std"]) == 4
    metrics = json.loads((optical / "metrics.json").read_text())
    assert len(card["ground"]) == metrics["tiles_by_use"]["train"]
    assert card["score"]["f1"] == metrics["val_f1"]
    assert card["epoch"] == metrics["epoch"]
    assert {"sn6", "torch", "lightning", "timm", "python"} <= set(card["versions"])
    assert (optical / "weights.safetensors").stat().st_size < best_size(optical) / 2  # no optimizer in it


def best_size(folder):
    return (folder / "checkpoints/best.ckpt").stat().st_size


@pytest.mark.parametrize("source", ["", "weights.safetensors", "checkpoints/best.ckpt"])
def test_a_radar_run_starts_from_a_folder_a_file_and_a_checkpoint(sn6_run, archive_root, optical, tmp_path, source):
    """With a learning rate of zero it ends where it started: at the optical weights."""
    done = sn6_run(*radar(archive_root, optical / source, "optimizer.lr=0.0", "optimizer.weight_decay=0.0"))
    assert done.status == 0, done.err
    weights, _ = read_weights(optical / "weights.safetensors")
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last[f"network.{name}"], tensor) for name, tensor in weights.items())
    with (tmp_path / "outputs/it/handoff.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["tensor"] for row in rows] == [name.removeprefix("network.") for name in last if "network" in name]
    assert {row["action"] for row in rows} == {"loaded"}
    assert {row["moved"] for row in rows} == {"0.0000"}
    assert "handed over from" in done.err


def test_a_frozen_encoder_stays_and_the_rest_learns(sn6_run, archive_root, optical, tmp_path):
    freeze = ("callbacks.sar_handoff.freeze_encoder_epochs=1", "optimizer.lr=0.01")
    assert sn6_run(*radar(archive_root, optical, *freeze)).status == 0
    with (tmp_path / "outputs/it/handoff.csv").open() as file:
        rows = {row["tensor"]: float(row["moved"]) for row in csv.DictReader(file)}
    assert all(distance == 0 for name, distance in rows.items() if name.startswith("encoder"))
    assert all(distance > 0 for name, distance in rows.items() if name.startswith("head"))


def test_the_encoder_learns_at_its_own_rate(sn6_run, archive_root, optical, tmp_path):
    rates = ("callbacks.sar_handoff.encoder_lr=0.1", "optimizer.lr=0.01")
    assert sn6_run(*radar(archive_root, optical, *rates)).status == 0
    optimizer = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert [group["lr"] for group in optimizer["param_groups"]] == pytest.approx([0.01, 0.001])
    count = len(list(TernausNet(4, width=4).encoder.parameters()))
    assert len(optimizer["param_groups"][1]["params"]) == count


def test_weights_that_saw_the_validation_ground_are_refused(sn6_run, archive_root, optical):
    done = sn6_run(*radar(archive_root, optical, "data.fold=0"))
    folds = "its fold is 4 of columns, this one 0 of columns"
    fails(done, "was trained on ground of", "validation tiles", folds, "allow_seen_ground=true")
    assert (
        sn6_run(*radar(archive_root, optical, "data.fold=0", "callbacks.sar_handoff.allow_seen_ground=true")).status
        == 0
    )


class Pickled(nn.Module):
    """What torch.save writes with its code's name in it."""


def test_files_that_do_not_do(sn6_run, archive_root, optical, tmp_path):
    fails(sn6_run(*radar(archive_root, tmp_path / "none.ckpt")), "none.ckpt", "there is no such file")
    (tmp_path / "empty").mkdir()
    fails(sn6_run(*radar(archive_root, tmp_path / "empty")), "holds none of weights.safetensors", "finished run")
    torch.save(Pickled(), tmp_path / "pickled.pt")
    fails(sn6_run(*radar(archive_root, tmp_path / "pickled.pt")), "pickled.pt", "without running code")
    truncated = shutil.copy(optical / "checkpoints/best.ckpt", tmp_path / "cut.ckpt")
    truncated.write_bytes(truncated.read_bytes()[:5000])
    fails(sn6_run(*radar(archive_root, truncated)), "cut.ckpt", "cut short")
    other = [word.replace("model=ternausnet", "model=unet") for word in radar(archive_root, optical)]
    other = [word for word in other if "pretrained" not in word]
    fails(sn6_run(*other), "does not fit UNet", "missing:", "unknown:")


STAGES = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"


def test_words_about_the_handoff_go_to_the_stage_that_has_it(sn6_run, archive_root, tmp_path, monkeypatch):
    folder = tmp_path / "b (1), c"  # and a folder with signs of Hydra's own grammar in its name
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = sn6_run(*small_run(), f"data.root={archive_root}", STAGES, "callbacks.sar_handoff.encoder_lr=0.5")
    assert done.status == 0, done.err
    assert "encoder_lr: 0.5" in (folder / "outputs/it/sar/config.yaml").read_text()
    assert "sar_handoff" not in (folder / "outputs/it/eo/config.yaml").read_text()


def test_words_that_do_not_fit_stages_are_told_before_the_first_one(sn6_run, archive_root, tmp_path):
    given = (*small_run(), f"data.root={archive_root}", STAGES)
    given = [word for word in given if not word.startswith("data=")]
    fails(sn6_run(*given, "data.product=PS-RGB"), "data.product=PS-RGB would go to all stages (eo, sar)", "stages.NAME")
    fails(sn6_run(*given, "data.crops=3"), "no 'data.crops'", "crop, crops_per_tile")
    fails(sn6_run(*given, "stages.eo=['data=eo','data.crops=3']"), "no 'data.crops'", "crop, crops_per_tile")
    assert not (tmp_path / "outputs/it/eo").exists()


def test_stages_of_different_networks_are_refused_before_the_first_one(sn6_run, archive_root, tmp_path):
    stages = "stages={eo:['data=eo','model.width=6'],sar:['data=sar','model.width=4']}"
    given = [word for word in small_run() if not word.startswith("model.width")]
    done = sn6_run(*given, f"data.root={archive_root}", stages)
    fails(done, "the stages eo and sar train different networks: model.width is 6 and 4")
    assert not (tmp_path / "outputs/it/eo").exists()
