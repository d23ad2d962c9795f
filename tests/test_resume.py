"""A run that was stopped, whenever and however, ends as one that never was."""

import csv
import json
import shutil

import pytest
import torch
from helpers.stopping import run_and_stop

from sn6.errors import UserError
from sn6.training.resume import check_same_config

WORDS = [
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
    "+callbacks.stop._target_=helpers.stopping.StopAt",
    "+trainer.enable_progress_bar=false",
    "~callbacks.progress_bar",
    "name=it",
]
TWO_STAGES = [
    *WORDS,
    "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}",
]


def test_a_run_from_before_a_key_goes_on_as_it_was(tmp_path):
    """data.split came later: what it is by default is what there was."""
    (tmp_path / "config.yaml").write_text("data: {fold: 4}")
    check_same_config(tmp_path, {"data": {"fold": 4, "split": "columns"}})
    with pytest.raises(UserError, match=r"another config: data.split=blocks \(was columns\)"):
        check_same_config(tmp_path, {"data": {"fold": 4, "split": "blocks"}})


def weights(folder):
    return torch.load(folder / "outputs/it/sar/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def scores(folder):
    metrics = json.loads((folder / "outputs/it/metrics.json").read_text())
    metrics.pop("seconds")
    metrics["eo"].pop("seconds")
    return metrics


def logged(path):
    """The values of all steps, but for how fast they were."""
    with path.open(newline="") as file:
        rows = [{key: row[key] for key in row if not key.startswith("speed/")} for row in csv.DictReader(file)]
    return [row for row in rows if any(row[key] for key in row if key not in ("epoch", "step"))]


def same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture(scope="module")
def words(archive_root):
    return [*TWO_STAGES, f"data.root={archive_root}"]


@pytest.fixture(scope="module")
def never_stopped(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("never_stopped")
    assert run_and_stop(words, folder) == 0, (folder / "log.txt").read_text()[-3000:]
    return folder


@pytest.mark.parametrize(
    "stop",
    [
        "SIGKILL eo 0 2",  # the optical stage, in the first epoch
        "SIGKILL eo 1 3",  # in a later one, before its last batch
        "SIGKILL sar 0 -1",  # at the hand-off
        "SIGKILL sar 0 0",  # before the first radar step
        "SIGKILL sar 1 0",  # after a validation
        "SIGKILL sar 1 2",  # the radar stage, in mid-epoch
        "SIGTERM sar 1 1",
        "SIGINT eo 1 1",
        "DISKFULL sar 1 1",
    ],
)
def test_a_stopped_run_ends_as_one_that_never_was(words, never_stopped, tmp_path, stop):
    expected = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "DISKFULL": 1}[stop.split()[0]]
    assert run_and_stop(words, tmp_path, stop) == expected, (tmp_path / "log.txt").read_text()[-3000:]
    assert not (tmp_path / "outputs/it/metrics.json").exists()
    assert run_and_stop(words, tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    same_bits(weights(tmp_path), weights(never_stopped))
    assert scores(tmp_path) == scores(never_stopped)
    for stage in ("eo", "sar"):
        logs = [logged(root / f"outputs/it/{stage}/metrics.csv") for root in (tmp_path, never_stopped)]
        assert logs[0] == logs[1]
    assert not [path for path in (tmp_path / "outputs").rglob(".*") if path.is_file() and path.name != ".training"]


def test_what_a_stop_says(words, tmp_path):
    run_and_stop(words, tmp_path, "SIGTERM eo 0 1")
    assert "stopped by SIGTERM; the same command goes on from" in (tmp_path / "log.txt").read_text().splitlines()[-1]
    run_and_stop(words, tmp_path, "DISKFULL eo 0 2")
    assert "make room and run the same command again" in (tmp_path / "log.txt").read_text().splitlines()[-1]


def test_a_truncated_last_checkpoint_falls_back_to_the_one_before(words, never_stopped, tmp_path):
    run_and_stop(words, tmp_path, "SIGKILL sar 1 2")
    last = tmp_path / "outputs/it/sar/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert run_and_stop(words, tmp_path) == 0
    assert "last.ckpt is broken and left out" in (tmp_path / "log.txt").read_text()
    same_bits(weights(tmp_path), weights(never_stopped))


def test_broken_checkpoints_alone_are_told(words, tmp_path):
    run_and_stop(words, tmp_path, "SIGKILL eo 1 2")
    for name in ("last.ckpt", "before_last.ckpt"):
        (tmp_path / "outputs/it/eo/checkpoints" / name).write_bytes(b"broken")
    assert run_and_stop(words, tmp_path) == 1
    assert "holds broken checkpoints alone; start over by resume=false" in (tmp_path / "log.txt").read_text()


def test_a_run_that_goes_on_with_another_config_is_refused_and_the_keys_are_told(words, never_stopped, tmp_path):
    run_and_stop(words, tmp_path, "SIGKILL eo 1 2")
    assert run_and_stop([*words, "optimizer.lr=0.5", "data.crop=32"], tmp_path) == 1
    last = (tmp_path / "log.txt").read_text().splitlines()[-1]
    assert "data.crop=32 (was 64), optimizer.lr=0.5 (was 0.0001)" in last or (
        "optimizer.lr=0.5 (was 0.0001), data.crop=32 (was 64)" in last
    )
    assert run_and_stop([*words, "data.num_workers=0"], tmp_path) == 0  # which touches nothing
    same_bits(weights(tmp_path), weights(never_stopped))


def test_a_finished_run_does_nothing_and_resume_false_puts_it_aside(words, never_stopped, tmp_path):
    shutil.copytree(never_stopped / "outputs", tmp_path / "outputs")
    before = weights(tmp_path)
    finished = [word for word in words if "sar_handoff" not in word]
    stages = f"stages={{eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights={never_stopped}/outputs/it/eo']}}"
    assert run_and_stop([*finished, stages], tmp_path) == 0
    assert "is finished" in (tmp_path / "log.txt").read_text()
    assert run_and_stop([*words, "resume=false", "trainer.max_epochs=1"], tmp_path) == 0
    assert "lies in" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "outputs/it.old1/sar/checkpoints/last.ckpt").exists()
    assert not all(torch.equal(weights(tmp_path)[name], tensor) for name, tensor in before.items())
