"""A run that is stopped and resumed gives the same bits as one that was never stopped."""

import csv
import shutil

import pytest
import torch
import yaml
from helpers.resuming import RUN, STAGES, STATUS, assert_same_run, log_of, metrics_of, weights_of
from helpers.stopping import read_user_error, run_and_stop

IT = "outputs/it"


def modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def remove_keys(path, *keys):
    """Remove keys from a saved config.yaml, as if it was written before they existed."""
    config = yaml.safe_load(path.read_text())
    for key in keys:
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        del node[name]
    path.write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def overrides(archive_root):
    return [*RUN, f"data.root={archive_root}"]


@pytest.fixture
def finished_copy(finished_run, tmp_path):
    """Copy the finished run to a folder for one test."""
    shutil.copytree(finished_run / "outputs", tmp_path / "outputs")
    return tmp_path


@pytest.fixture
def killed(killed_run, tmp_path):
    """Copy the killed run to a folder for one test."""
    shutil.copytree(killed_run / "outputs", tmp_path / "outputs")
    return tmp_path


def test_killed_run_resumes_to_the_same_bits_and_refuses_another_config(overrides, finished_run, killed):
    assert run_and_stop([*overrides, "optimizer.lr=0.5"], killed) == 1
    assert read_user_error(killed) == ("conflict", "optimizer.lr", 0.5)
    assert run_and_stop([*overrides, "data.num_workers=0"], killed) == 0, log_of(killed)[-3000:]
    assert "outputs/it/checkpoints/last.ckpt" in log_of(killed)  # from which it resumed
    assert_same_run(killed / IT, finished_run / IT)


def test_the_epoch_loss_is_the_mean_of_its_batches(finished_run):
    with (finished_run / IT / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for epoch in ("0", "1"):
        batches = [float(row["train/loss"]) for row in rows if row["epoch"] == epoch and row["train/loss"]]
        (mean,) = (float(row["train/epoch_loss"]) for row in rows if row["epoch"] == epoch and row["train/epoch_loss"])
        assert len(batches) == 4
        assert mean == pytest.approx(sum(batches) / 4)


@pytest.mark.slow
def test_killed_run_with_radar_crops_resumes_to_the_same_bits(overrides, tmp_path):
    radar = [*overrides, "augmentation=radar", "data.prefer_buildings=0.5"]
    killed, finished = tmp_path / "killed", tmp_path / "finished"
    for folder, stop, status in ((finished, None, 0), (killed, "SIGKILL it 1 2", STATUS["SIGKILL"]), (killed, None, 0)):
        folder.mkdir(exist_ok=True)
        assert run_and_stop(radar, folder, stop) == status, log_of(folder)[-3000:]
    assert_same_run(killed / IT, finished / IT)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_signal_stops_a_run_at_a_checkpoint(overrides, tmp_path, signal):
    assert run_and_stop(overrides, tmp_path, f"{signal} it 0 1") == STATUS[signal], log_of(tmp_path)[-3000:]
    assert read_user_error(tmp_path) == ("stopped", None, signal)
    last = "outputs/it/checkpoints/last.ckpt"
    assert last in log_of(tmp_path).splitlines()[-1]
    assert torch.load(tmp_path / last, weights_only=True)["global_step"] == 2


def test_full_disk_is_reported(overrides, tmp_path):
    assert run_and_stop(overrides, tmp_path, "DISKFULL it 0 1") == STATUS["DISKFULL"], log_of(tmp_path)[-3000:]
    assert read_user_error(tmp_path)[0] == "unwritable"


def test_truncated_last_checkpoint_falls_back_to_the_one_before(overrides, finished_run, killed):
    last = killed / "outputs/it/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert run_and_stop(overrides, killed) == 0, log_of(killed)[-3000:]
    assert last.with_name("last.ckpt.broken").exists()
    assert "before_last.ckpt" in log_of(killed)  # from which it resumed
    assert_same_run(killed / IT, finished_run / IT)


def test_run_with_only_broken_checkpoints_is_refused(overrides, killed):
    checkpoints = killed / "outputs/it/checkpoints"
    for name in ("last.ckpt", "before_last.ckpt"):
        (checkpoints / name).write_bytes(b"broken")
    assert run_and_stop(overrides, killed) == 1
    assert read_user_error(killed) == ("unreadable", str(checkpoints), None)


def test_run_from_before_a_key_existed_resumes(overrides, finished_run, killed):
    remove_keys(killed / "outputs/it/config.yaml", "data.partition", "compile", "callbacks.sar_handoff.adapt")
    assert run_and_stop(overrides, killed) == 0, log_of(killed)[-3000:]
    assert_same_run(killed / IT, finished_run / IT)


def test_run_from_before_a_key_existed_is_finished(overrides, finished_copy):
    remove_keys(finished_copy / "outputs/it/config.yaml", "data.partition", "compile")
    before = modification_times(finished_copy / "outputs/it")
    assert run_and_stop(overrides, finished_copy) == 0, log_of(finished_copy)[-3000:]
    assert modification_times(finished_copy / "outputs/it") == before
    assert run_and_stop([*overrides, "data.partition=blocks"], finished_copy) == 1
    assert read_user_error(finished_copy) == ("conflict", "data.partition", "blocks")


def test_resume_false_moves_the_old_run_aside(overrides, finished_run, finished_copy):
    assert (
        run_and_stop(
            [*overrides, "resume=false", "trainer.max_epochs=1", "trainer.limit_train_batches=1"], finished_copy
        )
        == 0
    )
    assert (finished_copy / "outputs/it.old1/checkpoints/last.ckpt").exists()
    before, after = weights_of(finished_run / IT), weights_of(finished_copy / IT)
    assert not all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.fixture(scope="module")
def two_stages(overrides):
    stages = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"
    return [*overrides, stages]


@pytest.fixture(scope="module")
def finished_stages(two_stages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    assert run_and_stop(two_stages, folder) == 0, log_of(folder)[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop",
    [
        "SIGKILL eo 0 2",  # the EO stage, in the first epoch
        "SIGKILL eo 1 3",  # in a later epoch, before its last batch
        "SIGKILL sar 0 -1",  # at the transfer
        "SIGKILL sar 0 0",  # before the first SAR step
        "SIGKILL sar 1 0",  # after a validation
        "SIGKILL sar 1 2",  # the SAR stage, within an epoch
        "SIGTERM sar 1 1",
        "SIGINT eo 1 1",
        "DISKFULL sar 1 1",
    ],
)
def test_stopped_stage_resumes_to_the_same_bits(two_stages, finished_stages, tmp_path, stop):
    assert run_and_stop(two_stages, tmp_path, stop) == STATUS[stop.split()[0]], log_of(tmp_path)[-3000:]
    assert not (tmp_path / "outputs/it/metrics.json").exists()
    assert run_and_stop(two_stages, tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert_same_run(tmp_path / IT, finished_stages / IT, STAGES)


@pytest.mark.slow
def test_finished_run_of_two_stages_does_nothing(two_stages, finished_stages, tmp_path):
    shutil.copytree(finished_stages / "outputs", tmp_path / "outputs")
    folders = [tmp_path / "outputs/it" / stage for stage in STAGES]
    before = [*map(modification_times, folders)]
    assert run_and_stop(two_stages, tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert [*map(modification_times, folders)] == before
    assert metrics_of(tmp_path / IT) == metrics_of(finished_stages / IT)
