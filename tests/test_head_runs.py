"""Runs with several heads: their config, two ranks, resuming, checkpoints of other heads, and prediction."""

import csv
import os
import signal

import numpy as np
import pytest
import torch
from helpers.commands import assert_fails, read_metrics, small_run
from helpers.ranks import on_ranks
from helpers.resuming import RUN, assert_same_run, log_of
from helpers.stopping import run_and_stop
from helpers.training import make_datamodule, make_trainer

OWN = """
from dataclasses import dataclass

import numpy as np

from sn6.targets.target import Target


@dataclass(frozen=True)
class Roof(Target):
    share: float = 0.5

    def tile(self, labels):
        return np.float32(self.share) * (labels.instances > 0)[None].astype(np.float32)
"""
HEADS = {  # head → weight
    "mask": 1.0,
    "contact": 0.1,
    "edge": 0.25,
    "distance": 1.0,
    "centre": 1.0,
    "offset": 0.1,
    "height": 0.5,
}


# --- several ranks


def train_heads(ranks, root, folder, store):
    """Return the weights and the logged losses of a network with every head, after four steps of eight crops."""
    from lightning import Callback

    from sn6.heads import Head, HeadLosses
    from sn6.losses import BCE, FocalDice, SmoothL1, WeightedBoundary
    from sn6.models.unet import UNet
    from sn6.schedules import constant
    from sn6.segmenter import Segmenter
    from sn6.targets.centre import Centre
    from sn6.targets.contact import Contact
    from sn6.targets.distance import Distance
    from sn6.targets.edge import InnerEdge
    from sn6.targets.height import Height
    from sn6.targets.mask import Mask
    from sn6.targets.offset import Offset

    class Losses(Callback):
        def __init__(self):
            self.values = []

        def on_train_batch_end(self, trainer, *_):
            self.values.append({key: float(value) for key, value in trainer.callback_metrics.items() if "loss" in key})

    targets = (Mask(), Contact(), InnerEdge(), Distance(), Centre(), Offset(), Height())
    losses = (WeightedBoundary(), FocalDice(), FocalDice(), BCE(), BCE(), SmoothL1(), SmoothL1())
    heads = {name: Head(target, loss, HEADS[name]) for name, target, loss in zip(HEADS, targets, losses, strict=True)}
    torch.manual_seed(0)
    network = UNet(in_channels=4, classes=8, width=4, depth=2)
    module = Segmenter(network, heads, lambda parameters: torch.optim.SGD(parameters, lr=0.01), constant)
    data = make_datamodule(root, crop=64, batch_size=8, crops_per_tile=4, targets=HeadLosses(heads).targets, **store)
    logged = Losses()
    make_trainer(ranks, folder, max_steps=4, limit_val_batches=0, max_epochs=1, callbacks=[logged]).fit(module, data)
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}, logged.values


def test_two_ranks_equal_one_for_every_head(archive_root, tmp_path):
    (one,) = on_ranks(train_heads, 1, archive_root, tmp_path, {})
    two = on_ranks(train_heads, 2, archive_root, tmp_path, {})
    (stored,) = on_ranks(train_heads, 1, archive_root, tmp_path, {"store": "disk", "store_root": str(tmp_path)})
    expected, logged = one
    for step in logged:
        assert step.keys() == {"train/loss", *(f"train/loss_{name}" for name in HEADS)}
        total = sum(weight * step[f"train/loss_{name}"] for name, weight in HEADS.items())
        assert step["train/loss"] == pytest.approx(total, rel=1e-5)
        assert all(step[f"train/loss_{name}"] > 0 for name in HEADS)
    assert len(logged) == 4
    for weights, values in (*two, stored):
        for step, wanted in zip(values, logged, strict=True):
            assert step == pytest.approx(wanted, rel=2e-5)
        for name, tensor in expected.items():
            np.testing.assert_allclose(weights[name], tensor, rtol=0, atol=2e-6, err_msg=name)


# --- runs


@pytest.fixture(scope="module")
def heads_run(archive_root, tmp_path_factory):
    """The folder of a finished run of `centre_offset`."""
    folder = tmp_path_factory.mktemp("heads")
    overrides = [*RUN, "heads=centre_offset", "polygons=centre_offset", f"data.root={archive_root}"]
    assert run_and_stop(overrides, folder) == 0, log_of(folder)[-3000:]
    return folder / "outputs/it"


@pytest.mark.slow
def test_a_killed_run_of_several_heads_resumes_to_the_same_bits(archive_root, heads_run, tmp_path):
    overrides = [*RUN, "heads=centre_offset", "polygons=centre_offset", f"data.root={archive_root}"]
    assert run_and_stop(overrides, tmp_path, "SIGKILL it 1 2") == -signal.SIGKILL
    assert run_and_stop(overrides, tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert_same_run(tmp_path / "outputs/it", heads_run)


def test_the_losses_of_the_heads_are_logged(heads_run):
    with (heads_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    heads = {"mask": 1.0, "centre": 1.0, "offset": 0.1}
    for use, number in (("train", 8), ("val", 2), ("test", 1)):
        logged = [row for row in rows if row[f"{use}/loss"]]
        assert len(logged) == number
        for row in logged:
            total = sum(weight * float(row[f"{use}/loss_{name}"]) for name, weight in heads.items())
            assert float(row[f"{use}/loss"]) == pytest.approx(total, rel=1e-5)


def test_a_prediction_gives_the_proposals_of_the_run(heads_run, archive_root, sn6_command, tmp_path):
    """A tile is one window: maps, centres and votes are equal to the bit."""
    done = sn6_command("predict", f"checkpoint={heads_run}", f"root={archive_root}", f"out={tmp_path / 'out'}")
    assert done.status == 0, done.err
    written = (tmp_path / "out/proposals.csv").read_text().splitlines()
    of_run = (heads_run / "proposals.csv").read_text().splitlines()
    shown = {line.split(",")[0] for line in of_run[1:]}
    assert [line for line in written if line.split(",")[0] in shown] == of_run[1:]
    assert read_metrics(heads_run)["operating_point"]["_target_"].endswith("CentreVoting")


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (["heads.contact.weight=0"], "invalid_value", "heads.contact.weight"),
        (["heads.contact.weight=-1"], "invalid_value", "heads.contact.weight"),
        (["heads.contact.weight=.inf"], "invalid_value", "heads.contact.weight"),
        (["heads.mask.weight=0", "heads.contact.weight=0"], "invalid_value", "heads.mask.weight"),
        (["~heads.contact.weight"], "missing_value", "heads.contact.weight"),
        (["~heads.contact.target"], "missing_value", "heads.contact.target._target_"),
        (["~heads.contact.loss._target_"], "missing_value", "heads.contact.loss._target_"),
        (["+heads.contact.wieght=2"], "unknown_key", "heads.contact.wieght"),
        (["heads.contact.target.radius=0"], "invalid_value", "heads.contact.target.radius"),
        (["heads.contact.target.radius=wide"], "invalid_value", "heads.contact.target.radius"),
        (["+heads.contact.loss.dise=2"], "unknown_key", "heads.contact.loss.dise"),
        (["heads.contact.target._target_=sn6.losses.BCE"], "invalid_value", "heads.contact.target._target_"),
        (["heads.contact.target._target_=sn6.targets.Contact"], "not_found", "heads.contact.target._target_"),
        (["heads.mask.target._target_=sn6.targets.edge.InnerEdge"], "invalid_value", "heads.mask.target._target_"),
        (["~heads.mask"], "missing_value", "heads.mask"),
        (["~heads"], "missing_value", "heads"),
        (["heads.contact=null"], "invalid_value", "heads.contact"),
        (["heads.contact=3"], "invalid_value", "heads.contact"),
        (["+heads.valid=${heads.contact}"], "invalid_value", "heads.valid"),
        (["+heads.Two=${heads.contact}"], "invalid_value", "heads.Two"),
        (["model.classes=3"], "conflict", "model.classes"),
        (["model.building_class=1"], "conflict", "model.building_class"),
        (["heads.contact.loss._target_=torch.nn.functional.mse_loss"], "invalid_value", "heads.contact.loss._target_"),
        (["heads.contact.loss._target_=torch.nn.BCELoss"], "invalid_value", "heads.contact.loss._target_"),
        (["loss.positive_weight=-1"], "invalid_value", "loss.positive_weight"),
        (["heads=mask", "polygons=distance"], "conflict", "polygons"),
        (["heads=towers"], "unknown_value", "heads"),
    ],
)
def test_wrong_heads_are_refused_before_anything_is_written(sn6_run, archive_root, tmp_path, overrides, kind, key):
    done = sn6_run(*small_run("unet"), "model.depth=2", f"data.root={archive_root}", "heads=instances", *overrides)
    assert_fails(done, kind, key)
    assert not [path for path in (tmp_path / "outputs").glob("**/*") if path.suffix in (".ckpt", ".json", ".csv")]


def test_a_wrong_loss_of_the_mask_is_said_once(sn6_run, archive_root):
    """It is in the config twice: as `loss`, and as that of the head."""
    done = sn6_run(*small_run("unet"), f"data.root={archive_root}", "heads=instances", "loss.positive_weight=-1")
    assert str(done.error).count("positive_weight") == 1


def test_weights_of_other_heads(heads_run, sn6_run, archive_root, tmp_path):
    run = [*small_run(), f"data.root={archive_root}", f"model.weights={heads_run}"]
    for heads, problems in {
        "mask": ("centre", "offset"),
        "distance": ("centre", "offset", "distance"),
        "centre_offset heads.centre.target.sigma=2.0": ("sigma=1.5", "2.0"),
    }.items():
        done = sn6_run(*run, *f"heads={heads}".split())
        assert_fails(done, "mismatch", "heads")
        assert all(problem in str(done.error) for problem in ("mask", *problems)), done.error
        assert "model.reset_head=true" in str(done.error)
    done = sn6_run(*run, "heads=distance", "model.reset_head=true")
    assert done.status == 0, done.err
    done = sn6_run(*run, "heads=centre_offset", "name=same")
    assert done.status == 0, done.err
    weights = torch.load(heads_run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert weights["network.head.weight"].shape[0] == 4


def test_optical_weights_of_other_heads_are_transferred_with_a_new_head(heads_run, sn6_run, archive_root, tmp_path):
    key = "callbacks.sar_handoff"
    run = [*small_run(), f"data.root={archive_root}", f"{key}.weights={heads_run}", f"{key}.allow_leakage=true"]
    assert_fails(sn6_run(*run), "mismatch", "heads")
    done = sn6_run(*run, f"{key}.reset_head=true")
    assert done.status == 0, done.err
    with (tmp_path / "outputs/it/handoff.csv").open() as file:
        initialised = [row["tensor"] for row in csv.DictReader(file) if row["action"] == "initialised"]
    assert initialised == ["head.weight", "head.bias"]


def test_stages_of_different_heads_are_refused(sn6_run, archive_root):
    handoff = "callbacks.sar_handoff.weights=${run_folder}/eo"
    stages = f"stages={{eo: ['data=eo', 'heads=instances'], sar: ['data=sar', '{handoff}']}}"
    assert_fails(sn6_run(*small_run(), f"data.root={archive_root}", stages), "mismatch", "heads")


def test_networks_of_different_heads_are_not_averaged(heads_run, sn6_run, sn6_command, archive_root, tmp_path):
    done = sn6_run(*small_run(), f"data.root={archive_root}", "heads=centre_offset", "heads.centre.target.sigma=1.0")
    assert done.status == 0, done.err
    other = tmp_path / "outputs/it"
    options = [f"root={archive_root}", f"out={tmp_path / 'out'}", f"checkpoint=[{heads_run},{other}]"]
    assert_fails(sn6_command("predict", *options), "conflict", "checkpoint")
    assert not (tmp_path / "out").exists()


def test_a_head_of_the_users_own(sn6_run, sn6_command, archive_root, tmp_path, monkeypatch):
    (tmp_path / "own_heads.py").write_text(OWN)
    (tmp_path / "my_conf/heads").mkdir(parents=True)
    node = "{weight: 0.5, target: {_target_: own_heads.Roof, share: 0.25}, loss: {_target_: sn6.losses.BCE}}"
    (tmp_path / "my_conf/heads/roofs.yaml").write_text(f"defaults: [mask]\nroof: {node}\n")
    monkeypatch.syspath_prepend(tmp_path)
    overrides = [*small_run("unet"), "model.depth=2", f"data.root={archive_root}", "heads=roofs"]
    done = sn6_run("--config-dir", str(tmp_path / "my_conf"), *overrides)
    assert done.status == 0, done.err
    assert "allow=own_heads.Roof" in done.out + done.err  # of the commands to go on with
    options = [f"root={archive_root}", f"out={tmp_path / 'out'}", f"checkpoint={tmp_path / 'outputs/it'}"]
    assert_fails(sn6_command("predict", *options), "missing_value", "allow")
    done = sn6_command("predict", *options, "allow=own_heads.Roof")
    assert done.status == 0, done.err
    assert os.path.getsize(tmp_path / "out/proposals.csv")


def test_a_run_from_before_there_were_heads_is_the_same_run(sn6_run, archive_root, tmp_path):
    overrides = [*small_run("unet"), "model.depth=2", f"data.root={archive_root}"]
    assert sn6_run(*overrides).status == 0
    path = tmp_path / "outputs/it/config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    start = lines.index("heads:\n")
    stop = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith(" "))
    path.write_text("".join(lines[:start] + lines[stop:]))
    assert sn6_run(*overrides).status == 0
    assert_fails(sn6_run(*overrides, "loss.positive_weight=2.0"), "conflict", "loss.positive_weight", 2.0)
    assert_fails(sn6_run(*overrides, "heads=instances"), "conflict")
