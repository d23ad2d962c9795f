"""Sweeps: every job trains its own overrides, on any number of devices, resumes after a stop, and is compared."""

import csv
import re
import signal
from itertools import product

import pytest
import yaml
from helpers.commands import assert_fails, assert_one_line, read_metrics, start, wait_for_end
from helpers.stopping import run_and_stop
from helpers.sweeps import read_jobs, read_ranks, small_sweep, wait_until
from helpers.wandb_file import read_run

PLAIN_NAME = re.compile(r"[A-Za-z0-9._+-]+")  # which no shell changes


@pytest.fixture
def forked_jobs(monkeypatch, tmp_path):
    """Run jobs in forks of a server that has done all imports, and return the list of their overrides."""
    commands = []

    def run(overrides, environment):
        commands.append(overrides)
        return run_and_stop(overrides, tmp_path)

    monkeypatch.setattr("sn6.sweeps.job.run_in_subprocess", run)
    return commands


def read_table(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def metrics_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}


def test_a_grid_records_a_failed_job_and_keeps_the_finished_one(sn6_run, archive_root, tmp_path, forked_jobs):
    sweep = small_sweep(archive_root, "data.fold=9,4", "objective=validation.loss")
    folder = tmp_path / "outputs/it"
    assert_fails(sn6_run(*sweep), "failed", folder.relative_to(tmp_path), 1)
    failed, finished = folder / "data.fold-9", folder / "data.fold-4"
    jobs = read_jobs(folder)
    assert set(jobs) == {failed, finished}
    assert jobs[failed]["status"] == "failed"
    assert jobs[failed]["error"] == (failed / "error.txt").read_text().strip()
    assert not (failed / "metrics.json").exists()
    assert jobs[finished]["status"] == "finished"
    assert jobs[finished]["value"] == read_metrics(finished)["validation"]["loss"]
    assert "data.fold=4" in jobs[finished]["overrides"]
    assert len(read_ranks(finished)) == 1
    rows = read_table(folder)
    assert [(row["folder"], row["status"], row["data.fold"]) for row in rows] == [
        ("data.fold-4", "finished", "4"),
        ("data.fold-9", "failed", "9"),
    ]
    assert float(rows[0]["validation.loss"]) == jobs[finished]["value"]
    assert rows[1]["error"] == jobs[failed]["error"]
    assert (folder / "sweep.png").stat().st_size > 1000
    before = metrics_times(folder)
    assert_fails(sn6_run(*sweep), "failed", folder.relative_to(tmp_path), 1)
    assert metrics_times(folder) == before
    assert len(forked_jobs) == 3  # only the failed job was tried again


def test_a_sweep_may_stop_at_the_first_failed_job(sn6_run, archive_root, tmp_path, forked_jobs):
    done = sn6_run(*small_sweep(archive_root, "data.fold=9,4", "on_failed_job=stop"))
    assert done.status == 1
    assert len(forked_jobs) == 1
    assert [job["status"] for job in read_jobs(tmp_path / "outputs/it").values()] == ["failed"]


@pytest.mark.slow
def test_paths_with_special_characters_are_swept(sn6_run, archive_root, tmp_path, forked_jobs):
    """A value that holds `=`, `,` or blanks is quoted on the command line; the job's folder has a plain name."""
    roots = [tmp_path / name for name in ("loss=bce,seed=0", "it's (old) ü")]
    for root in roots:
        root.symlink_to(archive_root)
    quoted = ",".join(f'"{root}"' for root in roots)
    sweep = [line for line in small_sweep(archive_root) if not line.startswith("data.root=")]
    done = sn6_run(*sweep, f"data.root={quoted}")
    assert done.status == 0, done.err
    jobs = read_jobs(tmp_path / "outputs/it")
    assert all(PLAIN_NAME.fullmatch(folder.name) for folder in jobs)
    assert {yaml.safe_load((folder / "config.yaml").read_text())["data"]["root"] for folder in jobs} == {
        *map(str, roots)
    }
    assert [row["status"] for row in read_table(tmp_path / "outputs/it")] == ["finished"] * 2
    assert sn6_run(*sweep, f"data.root={quoted}").status == 0
    assert len(forked_jobs) == 2  # the second time both were finished


@pytest.mark.slow
def test_a_grid_over_devices_gives_the_same_training(archive_root, tmp_path):
    sweep = small_sweep(archive_root, "trainer.devices=1,2", "data.batch_size=1,2", "logger=wandb")
    status, err = wait_for_end(start(tmp_path, sweep, NETRC=str(tmp_path / "none"), WANDB_SILENT="true"))
    assert_one_line(status, err, "outputs/it", "data.batch_size=1")
    folder = tmp_path / "outputs/it"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["it"]
    jobs = read_jobs(folder)
    sizes = list(product((1, 2), (1, 2)))
    by_name = {f"data.batch_size-{batch}_trainer.devices-{devices}": (batch, devices) for batch, devices in sizes}
    assert {path.name for path in jobs} == set(by_name)
    losses = {}
    for path, job in jobs.items():
        batch, devices = by_name[path.name]
        if (batch, devices) == (1, 2):
            assert job["status"] == "failed"
            continue
        assert job["value"] == read_metrics(path)["validation"]["f1"]
        assert [rank["ranks"] for rank in read_ranks(path)] == [devices] * devices
        (run,) = [read_run(part) for part in path.glob("wandb/offline-run-*")]
        assert (run["group"], run["name"]) == ("it", f"it/{path.name}")
        losses[batch, devices] = read_metrics(path)["validation"]["loss"]
    assert losses[2, 1] == pytest.approx(losses[2, 2], rel=1e-4)
    rows = read_table(folder)
    assert [row["status"] for row in rows] == ["finished"] * 3 + ["failed"]
    scores = [float(row["validation.f1"]) for row in rows[:3]]
    assert scores == sorted(scores, reverse=True)
    assert {(row["trainer.devices"], row["data.batch_size"]) for row in rows} == {(a, b) for a in "12" for b in "12"}


@pytest.mark.slow
def test_a_sweep_that_is_terminated_stops_its_job_at_a_checkpoint(archive_root, tmp_path):
    more = ("seed=1,2", "trainer.max_epochs=40", "callbacks.resume_point.every_n_steps=1")
    process = start(tmp_path, small_sweep(archive_root, *more))
    last = tmp_path / "outputs/it/seed-1/checkpoints/last.ckpt"
    wait_until(last.exists, process)
    process.terminate()
    status, err = wait_for_end(process)
    assert status == 128 + signal.SIGTERM
    (stopped,) = (line for line in err.splitlines() if line.startswith("sn6: "))
    assert str(last) in stopped
    assert {job["status"] for job in read_jobs(tmp_path / "outputs/it").values()} == {"stopped"}
    assert [row["status"] for row in read_table(tmp_path / "outputs/it")] == ["stopped"]
    assert not (tmp_path / "outputs/it/seed-2").exists()


@pytest.mark.slow
def test_jobs_at_the_same_time(archive_root, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = small_sweep(archive_root, "loss=bce,focal_dice", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    unnamed = [override for override in sweep if not override.startswith("name=")]
    status, err = wait_for_end(start(tmp_path, unnamed))
    assert status == 0, err
    (folder,) = (tmp_path / "outputs").iterdir()  # the default name holds the loss and the time
    statuses = {path.name: job["status"] for path, job in read_jobs(folder).items()}
    assert statuses == {"loss-bce": "finished", "loss-focal_dice": "finished"}


@pytest.mark.parametrize(
    ("more", "kind", "key"),
    [
        (["optimizer.lrr=1,2"], "unknown_key", "optimizer.lrr"),
        (["optimizer.lr=1e-3,high", "on_failed_job=stop"], "invalid_value", "optimizer.lr"),
        (["optimizer.lr=low,high"], "invalid_value", "optimizer.lr"),
        (["seed=1,2", "optimizer.lr=high"], "invalid_value", "optimizer.lr"),
        (["model=ternausnet,unett"], "unknown_value", "model"),
        (["seed=range(0,3)", "data.crops=5"], "unknown_key", "data.crops"),
        (["sweep=nosuch"], "unknown_value", "sweep"),
        (["hydra/sweeper=nosuch"], "unavailable", "hydra/sweeper"),
        (["stages={eo:['data=eo','loss=no']}", "seed=1,2"], "unknown_value", "loss"),
    ],
)
def test_invalid_overrides_are_reported_before_the_first_job(sn6_run, archive_root, tmp_path, more, kind, key):
    assert_fails(sn6_run(*small_sweep(archive_root), *more), kind, key)
    assert not list(tmp_path.glob("outputs/it/*-*"))


@pytest.mark.slow
def test_an_invalid_value_among_others_fails_its_own_job(sn6_run, archive_root, tmp_path, forked_jobs):
    folder = tmp_path / "outputs/it"
    done = sn6_run(*small_sweep(archive_root, "data.crop=64,-5"))
    assert_fails(done, "failed", folder.relative_to(tmp_path), 1)
    rows = {row["data.crop"]: row for row in read_table(folder)}
    assert {crop: row["status"] for crop, row in rows.items()} == {"64": "finished", "-5": "failed"}
    assert "data.crop=-5" in rows["-5"]["error"]
    assert read_jobs(folder)[folder / "data.crop--5"]["error"] == rows["-5"]["error"]


def test_a_run_and_a_sweep_keep_out_of_the_folder_of_the_other(sn6_run, archive_root, tmp_path):
    for path in (tmp_path / "outputs/it/config.yaml", tmp_path / "outputs/folds/fold-1/config.yaml"):
        path.parent.mkdir(parents=True)
        path.write_text("name: it\n")
    assert_fails(sn6_run(*small_sweep(archive_root), "seed=1,2"), "conflict", "name", "it")
    assert_fails(sn6_run(f"data.root={archive_root}", "name=folds"), "conflict", "name", "folds")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["config.yaml", "config.yaml"]


def test_a_sweep_in_each_process_of_torchrun_is_refused(sn6_run, archive_root, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    assert_fails(sn6_run(*small_sweep(archive_root), "seed=1,2"), "conflict")


def test_the_best_job_is_the_first():
    from sn6.sweeps.comparison import Job, best_first

    finished = [Job(str(value), {}, "finished", value, 1.0, "") for value in (0.3, 0.1, 0.2)]
    jobs = [Job("x", {}, "failed", None, 1.0, "reason"), *finished]
    assert [job.value for job in best_first(jobs, "validation.loss")] == [0.1, 0.2, 0.3, None]
    assert [job.value for job in best_first(jobs, "validation.f1")] == [0.3, 0.2, 0.1, None]
