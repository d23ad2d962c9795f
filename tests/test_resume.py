"""A run that is stopped and resumed gives the same bits as one that was never stopped."""

import csv
import json
import shutil

import pytest
import torch
import yaml
from helpers.errors import user_error
from helpers.stopping import STOP_CALLBACK, read_user_error, run_and_stop

from sn6.training.resume import TRAINING_LOCK, check_same_config

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
    "callbacks.image_logging.tiles=1",
    "callbacks.calibration.tiles=2",
    "callbacks.resume_point.every_n_steps=1",
    STOP_CALLBACK,
    "+trainer.enable_progress_bar=false",
    "~callbacks.progress_bar",
    "name=it",
]
TWO_STAGES = [*RUN, "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"]
STATUS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "DISKFULL": 1}
slow = pytest.mark.slow


def log_of(folder):
    return (folder / "log.txt").read_text()


def weights_of(folder):
    return torch.load(folder / "outputs/it/sar/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def metrics_of(folder):
    metrics = json.loads((folder / "outputs/it/metrics.json").read_text())
    metrics.pop("seconds")
    metrics["eo"].pop("seconds")
    return metrics


def logged_values(path):
    """Read the logged values of all steps, except throughput."""
    with path.open(newline="") as file:
        rows = [{key: row[key] for key in row if not key.startswith("throughput/")} for row in csv.DictReader(file)]
    return [row for row in rows if any(row[key] for key in row if key not in ("epoch", "step"))]


def assert_same_bits(weights, expected):
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture(scope="module")
def overrides(archive_root):
    return [*TWO_STAGES, f"data.root={archive_root}"]


@pytest.fixture(scope="module")
def never_stopped(overrides, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("never_stopped")
    assert run_and_stop(overrides, folder) == 0, log_of(folder)[-3000:]
    return folder


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param("SIGKILL eo 0 2", marks=slow),  # the EO stage, in the first epoch
        pytest.param("SIGKILL eo 1 3", marks=slow),  # in a later epoch, before its last batch
        pytest.param("SIGKILL sar 0 -1", marks=slow),  # at the transfer
        pytest.param("SIGKILL sar 0 0", marks=slow),  # before the first SAR step
        pytest.param("SIGKILL sar 1 0", marks=slow),  # after a validation
        "SIGKILL sar 1 2",  # the SAR stage, within an epoch
        pytest.param("SIGTERM sar 1 1", marks=slow),
        pytest.param("SIGINT eo 1 1", marks=slow),
        pytest.param("DISKFULL sar 1 1", marks=slow),
    ],
)
def test_stopped_run_resumes_to_the_same_bits(overrides, never_stopped, tmp_path, stop):
    signal, stage = stop.split()[:2]
    assert run_and_stop(overrides, tmp_path, stop) == STATUS[signal], log_of(tmp_path)[-3000:]
    assert not (tmp_path / "outputs/it/metrics.json").exists()
    last = tmp_path / "outputs/it" / stage / "checkpoints/last.ckpt"
    if signal in ("SIGTERM", "SIGINT"):
        assert read_user_error(tmp_path) == ("stopped", None, signal)
        assert str(last.relative_to(tmp_path)) in log_of(tmp_path).splitlines()[-1]
    elif signal == "DISKFULL":
        assert read_user_error(tmp_path)[0] == "unwritable"
    assert run_and_stop(overrides, tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert_same_bits(weights_of(tmp_path), weights_of(never_stopped))
    assert metrics_of(tmp_path) == metrics_of(never_stopped)
    for stage in ("eo", "sar"):
        values, expected = (
            logged_values(folder / f"outputs/it/{stage}/metrics.csv") for folder in (tmp_path, never_stopped)
        )
        assert values == expected
    hidden = {path.name for path in (tmp_path / "outputs").rglob(".*") if path.is_file()}
    assert hidden <= {TRAINING_LOCK}  # no temporary files
