"""Compare a run that was stopped and resumed with one that never stopped."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from helpers.stopping import STOP, STOP_CALLBACK
from sn6.training.resume import TRAINING_LOCK

RUN = [
    "model=ternausnet",
    "model.width=4",
    "model.pretrained=null",
    "loss=weighted_boundary",
    "schedule=cosine",
    "data.crop=64",
    "data.batch_size=2",
    "data.num_workers=1",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=4",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "callbacks.image_logging.tiles=0",
    "callbacks.polygon_f1.curve=[]",
    "trainer.limit_test_batches=2",
    "callbacks.resume_point.every_n_steps=1",
    STOP_CALLBACK,
    "+callbacks.kill._target_=helpers.resuming.KillInCalibration",
    "+trainer.enable_progress_bar=false",
    "~callbacks.progress_bar",
    "name=it",
]
STAGES = ("eo", "sar")
STATUS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "DISKFULL": 1}


class KillInCalibration(Callback):
    """Kill this process when the stage that the environment variable names begins its calibration."""

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        if os.environ.get(STOP) == f"calibration {Path(trainer.default_root_dir).name}":
            os.kill(os.getpid(), signal.SIGKILL)


def log_of(folder: Path) -> str:
    """Return what the runs in `folder` printed."""
    return (folder / "log.txt").read_text()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights at the end of a run or a stage."""
    path = run / "checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def metrics_of(run: Path) -> dict[str, Any]:
    """Return the metrics.json of a run without its times."""
    metrics = json.loads((run / "metrics.json").read_text())
    for part in (metrics, *metrics.get("stages", {}).values()):
        part.pop("timing")
    return metrics


def logged_values(run: Path) -> list[dict[str, str]]:
    """Read the logged values of all steps, except throughput."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{key: row[key] for key in row if not key.startswith("throughput/")} for row in csv.DictReader(file)]
    return [row for row in rows if any(row[key] for key in row if key not in ("epoch", "step"))]


def assert_same_run(run: Path, expected: Path, stages: tuple[str, ...] = ("",)) -> None:
    """Assert that two runs are equal to the bit, and that nothing unfinished is left."""
    assert metrics_of(run) == metrics_of(expected)
    for stage in stages:
        assert logged_values(run / stage) == logged_values(expected / stage)
        weights, expected_weights = weights_of(run / stage), weights_of(expected / stage)
        assert weights.keys() == expected_weights.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, expected_weights[name]), name
    hidden = {path.name for path in run.rglob(".*") if path.is_file()}
    assert hidden <= {TRAINING_LOCK}  # no temporary files
