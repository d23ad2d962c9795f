"""What a resumed run may change, and what makes it another run."""

import copy
import os

import pytest
from hydra import compose, initialize_config_dir

from sn6.config.composition import CONF, VERSION_BASE, to_plain
from sn6.training.run_identity import differences
from sn6.training.run_paths import portable


def composed(*overrides):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", ["name=a", "folder=f", "run_folder=f", *overrides])
    return to_plain(config)


@pytest.fixture(scope="module")
def config():
    return composed()


@pytest.mark.parametrize(
    "override",
    [
        "name=b",
        "group=g",
        "folder=elsewhere",
        "objective=val_iou",
        "on_failed_job=stop",
        "data.num_workers=7",
        "data.store_root=elsewhere",
        "trainer.devices=4",
        "trainer.accelerator=cpu",
        "trainer.num_nodes=2",
        "trainer.strategy=ddp",
        "trainer.profiler=simple",
        "trainer.log_every_n_steps=1",
        "+trainer.enable_progress_bar=false",
        "logger=wandb",
        "callbacks.image_logging.tiles=9",
        "callbacks.resume_point.every_n_steps=5",
        "~callbacks.progress_bar",
        "~callbacks.throughput",
    ],
)
def test_where_a_run_computes_and_what_it_shows_may_change(config, override):
    assert differences(config, composed(override), may_train_longer=False) == {}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed"),
        ("callbacks.ema.decay=0.99", "callbacks.ema.decay"),
        ("callbacks.early_stopping.patience=3", "callbacks.early_stopping.patience"),
        ("data.crop=256", "data.crop"),
        ("data.fold=0", "data.fold"),
        ("model.width=32", "model.width"),
        ("model=unet", "model._target_"),
        ("model.weights=w.ckpt", "model.weights"),
        ("loss=focal_dice", "loss._target_"),
        ("augmentation=none", "augmentation._target_"),
        ("optimizer.lr=1e-3", "optimizer.lr"),
        ("trainer.precision=32-true", "trainer.precision"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
        ("polygons.threshold=0.4", "polygons.threshold"),
        ("callbacks.checkpoint.dirpath=elsewhere", "callbacks.checkpoint.dirpath"),
        ("callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.monitor"),
        ("callbacks.sar_handoff.weights=w", "callbacks.sar_handoff.weights"),
        ("~callbacks.calibration", "callbacks.calibration._target_"),
        ("window=512", "window"),
    ],
)
def test_what_is_trained_may_not_change(config, override, key):
    assert key in differences(config, composed(override), may_train_longer=True)


def test_only_a_stopped_run_may_train_longer(config):
    longer = composed("trainer.max_epochs=99", "trainer.max_steps=1000")
    assert differences(config, longer, may_train_longer=True) == {}
    assert set(differences(config, longer, may_train_longer=False)) == {"trainer.max_epochs", "trainer.max_steps"}


@pytest.mark.parametrize(
    ("path", "default", "other"),
    [
        (("data", "partition"), "columns", "blocks"),
        (("data", "eval_batch_size"), 1, 2),
        (("loss", "positive_weight"), 1.0, 2.0),
        (("compile",), False, True),
        (("trainer", "accumulate_grad_batches"), 1, 2),
        (("model", "reset_head"), False, True),
        (("callbacks", "sar_handoff", "allow_leakage"), False, True),
    ],
)
def test_a_key_that_an_older_run_lacks_has_its_default(config, path, default, other):
    older, newer = copy.deepcopy(config), copy.deepcopy(config)
    parent, twin = older, newer
    for name in path[:-1]:
        parent, twin = parent[name], twin[name]
    del parent[path[-1]]
    twin[path[-1]] = default
    assert differences(older, newer, may_train_longer=False) == {}
    twin[path[-1]] = other
    assert differences(older, newer, may_train_longer=False) == {".".join(path): (default, other)}


def test_a_run_from_before_callbacks_that_are_off_and_before_schedules_moved_is_the_same(config):
    older = copy.deepcopy(config)
    del older["callbacks"]["ema"], older["callbacks"]["early_stopping"]
    older["schedule"]["_target_"] = "sn6.segmenter.constant"
    assert differences(older, config, may_train_longer=False) == {}
    averaged = composed("callbacks.ema.decay=0.9", "schedule.warmup=0.5")
    assert set(differences(older, averaged, may_train_longer=True)) == {
        *("callbacks.ema._target_", "callbacks.ema.decay", "schedule.warmup")
    }


@pytest.mark.parametrize("working_folder", [".", "a"])
def test_paths_inside_a_run_are_those_from_its_folder(tmp_path, monkeypatch, working_folder):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / working_folder)
    run, stage = f"{tmp_path}/runs/x", f"{tmp_path}/runs/x/sar"
    weights = os.path.relpath(f"{run}/eo", tmp_path / working_folder)  # as a user types it
    config = composed(
        f"folder={stage}",
        f"run_folder={run}",
        "data.root=archive",
        f"callbacks.sar_handoff.weights={weights}",
        f"model.weights={tmp_path}/runs/xx/best.ckpt",
    )
    relative = portable(config)
    assert (relative["folder"], relative["run_folder"]) == (".", "..")
    assert relative["callbacks"]["checkpoint"]["dirpath"] == "checkpoints"
    assert relative["callbacks"]["resume_point"]["folder"] == "."
    assert relative["callbacks"]["sar_handoff"]["weights"] == "../eo"
    assert relative["data"]["root"] == "archive"
    assert relative["model"]["weights"] == f"{tmp_path}/runs/xx/best.ckpt"  # of a run whose name begins alike
    assert portable(relative) == relative
