"""Early stopping: after which validation a training ends, also one that was stopped and resumes."""

import json

import pytest
import torch
from helpers.commands import assert_fails, small_run
from helpers.resuming import RUN, assert_same_run, log_of, logged_values
from helpers.stopping import run_and_stop
from helpers.training import make_datamodule, make_segmenter, make_trainer
from lightning import Callback
from omegaconf import OmegaConf

from sn6.callbacks.early_stopping import EarlyStopping
from sn6.training.quiet import quiet_libraries
from sn6.training.stage import active_callbacks

SCORES = (0.5, 0.4, 0.6, 0.6, 0.55, 0.9)


class Scores(Callback):
    """Log given scores, and write a checkpoint in the middle and at the end of each epoch."""

    def __init__(self, scores, folder):
        self.scores, self.folder, self.steps = scores, folder, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1
        if batch_idx == 0:
            trainer.save_checkpoint(self.folder / f"middle{trainer.current_epoch}.ckpt")

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/score", self.scores[trainer.current_epoch])

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"end{trainer.current_epoch}.ckpt")


def train(root, folder, scores=SCORES, checkpoint=None, every=1.0, **options):
    """Train at most six epochs of two batches, validated `every` part; return steps of this training and weights."""
    stopping = EarlyStopping(**{"patience": 2, "monitor": "val/score"} | options)
    callback = Scores(scores, folder)
    limits = {"max_epochs": 6, "limit_train_batches": 2, "num_sanity_val_steps": 0, "val_check_interval": every}
    trainer = make_trainer(1, folder, callbacks=[stopping, callback], **limits)
    module = make_segmenter(torch.nn.Conv2d(4, 1, 1))
    with quiet_libraries():
        trainer.fit(module, make_datamodule(root, crop=32, batch_size=2), ckpt_path=checkpoint)
    return callback.steps, module.network.state_dict()


@pytest.mark.parametrize(
    ("scores", "options", "epochs"),
    [
        (SCORES, {}, 5),  # 0.6 was not exceeded twice
        (SCORES, {"patience": 1}, 2),
        (SCORES, {"patience": 3}, 6),
        (SCORES, {"patience": 3, "min_delta": 0.2}, 4),
        ([-score for score in SCORES], {"mode": "min"}, 5),
    ],
)
def test_epochs_until_the_end(archive_root, tmp_path, scores, options, epochs):
    assert train(archive_root, tmp_path, scores, **options)[0] == 2 * epochs


def test_a_training_that_resumes_ends_at_the_same_step(archive_root, tmp_path):
    steps, weights = train(archive_root, tmp_path)
    for name, done in (("middle1", 3), ("end3", 8), ("middle4", 9), ("end4", 10)):
        (tmp_path / name).mkdir()
        more, resumed = train(archive_root, tmp_path / name, checkpoint=tmp_path / f"{name}.ckpt")
        assert done + more == steps, name
        assert all(torch.equal(resumed[key], one) for key, one in weights.items())


def test_a_training_that_was_to_end_within_an_epoch_has_no_more_steps(archive_root, tmp_path):
    options = {"scores": [0.5] * 6, "every": 0.5}  # the third validation is after the first batch of the second epoch
    steps, weights = train(archive_root, tmp_path, **options)
    assert steps == 3
    (tmp_path / "resumed").mkdir()
    more, resumed = train(archive_root, tmp_path / "resumed", checkpoint=tmp_path / "end1.ckpt", **options)
    assert more == 0
    assert all(torch.equal(resumed[key], one) for key, one in weights.items())


def test_a_null_leaves_a_callback_out():
    nodes = {
        "ema": {"_target_": "sn6.callbacks.ema.EMA", "decay": None},
        "early_stopping": {"_target_": "sn6.callbacks.early_stopping.EarlyStopping", "patience": None},
        "throughput": {"_target_": "sn6.callbacks.throughput.Throughput"},
        "image_logging": None,
    }
    assert list(active_callbacks(OmegaConf.create(nodes))) == ["throughput"]
    nodes["ema"]["decay"] = 0.5
    nodes["early_stopping"]["patience"] = 1
    assert list(active_callbacks(OmegaConf.create(nodes))) == ["ema", "early_stopping", "throughput"]


@pytest.mark.parametrize(
    ("override", "kind", "key", "value"),
    [
        ("callbacks.early_stopping.patience=0", "invalid_value", "callbacks.early_stopping.patience", 0),
        ("callbacks.ema.decay=1", "invalid_value", "callbacks.ema.decay", 1),
        ("callbacks.image_logging.tiles=-1", "invalid_value", "callbacks.image_logging.tiles", -1),
        ("callbacks.early_stopping.monitor=val/f2", "unknown_value", "callbacks.early_stopping.monitor", "val/f2"),
        ("callbacks.early_stopping.monitor=val/loss", "conflict", "callbacks.early_stopping.mode", "max"),
        ("callbacks.early_stopping.mode=min", "conflict", "callbacks.early_stopping.mode", "min"),
        ("callbacks.checkpoint.monitor=val/split", "conflict", "callbacks.checkpoint.mode", "max"),
        ("callbacks.ema=0.99", "invalid_value", "callbacks.ema", 0.99),
    ],
)
def test_wrong_values(sn6_run, archive_root, override, kind, key, value):
    assert_fails(sn6_run(*small_run(), f"data.root={archive_root}", override), kind, key, value)


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["SIGKILL it 1 2", "SIGKILL test process 0", "SIGTERM validation_fit_1 process 0"])
def test_a_stopped_run_ends_as_one_that_was_not(archive_root, tmp_path, stop):
    """An untrained network has F1 0 in each of four epochs: the second validation ends the training."""
    more = ["trainer.max_epochs=4", "callbacks.early_stopping.patience=1", "callbacks.ema.decay=0.9"]
    overrides = [*RUN, *more, f"data.root={archive_root}", "+callbacks.stop_in._target_=helpers.stopping.StopIn"]
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    assert run_and_stop(overrides, tmp_path / "whole") == 0, log_of(tmp_path / "whole")[-3000:]
    whole, stopped = tmp_path / "whole/outputs/it", tmp_path / "stopped/outputs/it"
    assert max(int(row["step"]) for row in logged_values(whole)) == 8
    assert json.loads((whole / "metrics.json").read_text())["validation"]["epoch"] == 0
    assert run_and_stop(overrides, tmp_path / "stopped", stop) in (-9, 143)
    assert run_and_stop(overrides, tmp_path / "stopped") == 0, log_of(tmp_path / "stopped")[-3000:]
    assert_same_run(stopped, whole)
