"""Sweeps: every job trains its own overrides, on any number of devices, resumes after a stop, and is compared."""

import csv
import json
import os
import pickle
import re
import signal
from contextlib import ExitStack
from itertools import product

import pytest
import yaml
from helpers.commands import assert_fails, assert_one_line, read_metrics, start, wait_for_end
from helpers.errors import user_error
from helpers.stopping import run_and_stop
from helpers.sweeps import read_jobs, read_ranks, small_sweep, wait_until
from helpers.wandb_file import read_run

needs_optuna = pytest.mark.usefixtures("optuna")
PLAIN_NAME = re.compile(r"[A-Za-z0-9._+-]+")  # which no shell changes


@pytest.fixture
def optuna():
    """Import Optuna, of the extra `sweep`."""
    return pytest.importorskip("optuna")


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
    sweep = small_sweep(archive_root, "data.fold=9,4", "objective=val_loss")
    folder = tmp_path / "outputs/it"
    assert_fails(sn6_run(*sweep), "failed", folder.relative_to(tmp_path), 1)
    failed, finished = folder / "data.fold-9", folder / "data.fold-4"
    jobs = read_jobs(folder)
    assert set(jobs) == {failed, finished}
    assert jobs[failed]["status"] == "failed"
    assert jobs[failed]["error"] == (failed / "error.txt").read_text().strip()
    assert not (failed / "metrics.json").exists()
    assert jobs[finished]["status"] == "finished"
    assert jobs[finished]["value"] == read_metrics(finished)["val_loss"]
    assert "data.fold=4" in jobs[finished]["overrides"]
    assert len(read_ranks(finished)) == 1
    rows = read_table(folder)
    assert [(row["folder"], row["status"], row["data.fold"]) for row in rows] == [
        ("data.fold-4", "finished", "4"),
        ("data.fold-9", "failed", "9"),
    ]
    assert float(rows[0]["val_loss"]) == jobs[finished]["value"]
    assert rows[1]["error"] == jobs[failed]["error"]
    assert (folder / "sweep.png").stat().st_size > 1000
    before = metrics_times(folder)
    assert_fails(sn6_run(*sweep), "failed", folder.relative_to(tmp_path), 1)
    assert metrics_times(folder) == before
    assert len(forked_jobs) == 3  # only the failed job was tried again


def test_a_job_runs_in_a_process_of_its_own():
    from sn6.sweeps.job import run_in_subprocess

    assert run_in_subprocess(["--version"], {}) == 0
    assert run_in_subprocess(["--version"], {"PYTHONHOME": "/nowhere"}) == 1


def test_a_sweep_may_stop_at_the_first_failed_job(sn6_run, archive_root, tmp_path, forked_jobs):
    done = sn6_run(*small_sweep(archive_root, "data.fold=9,4", "on_failed_job=stop"))
    assert done.status == 1
    assert len(forked_jobs) == 1
    assert [job["status"] for job in read_jobs(tmp_path / "outputs/it").values()] == ["failed"]


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
        assert job["value"] == read_metrics(path)["val_f1"]
        assert [rank["ranks"] for rank in read_ranks(path)] == [devices] * devices
        (run,) = [read_run(part) for part in path.glob("wandb/offline-run-*")]
        assert (run["group"], run["name"]) == ("it", f"it/{path.name}")
        losses[batch, devices] = read_metrics(path)["val_loss"]
    assert losses[2, 1] == pytest.approx(losses[2, 2], rel=1e-4)
    rows = read_table(folder)
    assert [row["status"] for row in rows] == ["finished"] * 3 + ["failed"]
    scores = [float(row["val_f1"]) for row in rows[:3]]
    assert scores == sorted(scores, reverse=True)
    assert {(row["trainer.devices"], row["data.batch_size"]) for row in rows} == {(a, b) for a in "12" for b in "12"}


@pytest.mark.slow
@needs_optuna
def test_a_study_on_two_devices_that_is_killed_resumes(archive_root, tmp_path):
    import optuna

    sweep = small_sweep(
        archive_root,
        "sweep=optuna",
        "hydra.sweeper.n_trials=3",
        "data.crop=choice(32,64)",
        "trainer.devices=2",
        "trainer.max_epochs=4",
        "callbacks.resume_point.every_n_steps=1",
    )
    sweep.remove("data.crop=64")  # which would be left out of the search
    folder, url = tmp_path / "outputs/it", f"sqlite:///{tmp_path}/outputs/it/study.db"
    process = start(tmp_path, sweep)
    try:
        wait_until(
            lambda: len(read_jobs(folder)) == 1 and len(list(folder.glob("*/checkpoints/last.ckpt"))) == 2, process
        )
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (stopped,) = {path.parent.parent for path in folder.glob("*/checkpoints/last.ckpt")} - set(read_jobs(folder))
    status, err = wait_for_end(start(tmp_path, sweep))
    assert status == 0, err
    assert f"{stopped}/checkpoints/last.ckpt" in err  # from which the job resumed
    jobs = read_jobs(folder)
    assert len(jobs) == 3
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 3  # one folder a job
    trials = optuna.load_study(study_name="it", storage=url).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert len(trials) == 3
    for path, job in jobs.items():
        first, second = read_ranks(path)
        assert first == second
        (trial,) = [trial for trial in trials if trial.params["optimizer.lr"] == first["lr"]]
        assert trial.params["data.crop"] == first["crop"]
        assert trial.params["loss"].replace("_", "") == first["loss"].lower()
        assert trial.value == job["value"] == read_metrics(path)["val_f1"]


@pytest.mark.slow
def test_a_sweep_that_is_terminated_stops_its_job_at_a_checkpoint(archive_root, tmp_path):
    more = ("seed=1,2", "trainer.max_epochs=40", "callbacks.resume_point.every_n_steps=1")
    process = start(tmp_path, small_sweep(archive_root, *more))
    last = tmp_path / "outputs/it/seed-1/checkpoints/last.ckpt"
    wait_until(last.exists, process)
    process.terminate()
    status, err = wait_for_end(process)
    assert status == 128 + signal.SIGTERM
    assert str(last) in err.splitlines()[-1]
    assert not (tmp_path / "outputs/it/seed-2").exists()


@pytest.mark.slow
@needs_optuna
def test_jobs_at_the_same_time(archive_root, tmp_path):
    sweep = small_sweep(archive_root, "loss=bce,focal_dice", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    unnamed = [override for override in sweep if not override.startswith("name=")]
    status, err = wait_for_end(start(tmp_path, unnamed))
    assert status == 0, err
    (folder,) = (tmp_path / "outputs").iterdir()  # the default name holds the loss and the time
    statuses = {path.name: job["status"] for path, job in read_jobs(folder).items()}
    assert statuses == {"loss-bce": "finished", "loss-focal_dice": "finished"}
    longer = [*unnamed, f"name={folder.name}", "trainer.max_epochs=2"]
    status, err = wait_for_end(start(tmp_path, longer))
    assert status == 1
    assert "trainer.max_epochs=2 (was 1)" in err
    assert {job["status"] for job in read_jobs(folder).values()} == {"finished"}  # the finished jobs stay


@pytest.mark.parametrize(
    ("more", "kind", "key"),
    [
        (["optimizer.lrr=1,2"], "unknown_key", "optimizer.lrr"),
        (["optimizer.lr=1e-3,high"], "invalid_value", "optimizer.lr"),
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


def test_a_sweep_in_each_process_of_torchrun_is_refused(sn6_run, archive_root, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    assert_fails(sn6_run(*small_sweep(archive_root), "seed=1,2"), "conflict")


def test_only_the_status_of_a_stopped_job_is_pickled():
    from sn6.sweeps.job import JobExit

    error = JobExit(143)
    error.attached = [error]  # as Hydra attaches the result of the job
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is SystemExit
    assert copied.code == 143
    assert not vars(copied)


@needs_optuna
@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("sqlite:////nowhere/at/all.db", "sqlite:////nowhere/at/all.db"),
        ("postgresql+nodriver://me:secret@127.0.0.1:9/db", "postgresql+nodriver://me:***@127.0.0.1:9/db"),
    ],
)
def test_a_storage_out_of_reach(sn6_run, archive_root, storage, shown):
    more = ("sweep=optuna", "data.crop=64", f"hydra.sweeper.storage='{storage}'")
    done = sn6_run(*small_sweep(archive_root), *more)
    assert_fails(done, "unavailable", "hydra.sweeper.storage", shown)
    assert "secret" not in done.err.splitlines()[-1]


@needs_optuna
@pytest.mark.parametrize(
    ("more", "kind", "key", "value"),
    [
        ("objective=val_loss", "conflict", "hydra.sweeper.direction", "maximize"),
        ("hydra.sweeper.direction=up", "conflict", "hydra.sweeper.direction", "up"),
        ("hydra.sweeper.n_trials=0", "invalid_value", "hydra.sweeper.n_trials", 0),
        ("hydra/launcher=submitit_slurm", "not_found", "cluster", "slurm"),
    ],
)
def test_an_invalid_search(sn6_run, archive_root, more, kind, key, value):
    done = sn6_run(*small_sweep(archive_root), "sweep=optuna", "data.crop=64", more)
    assert_fails(done, kind, key, value)


def study_config(folder, objective="val_f1", direction="maximize", n_trials=2):
    """Return the part of a sweep's config that a study reads."""
    from omegaconf import OmegaConf

    storage = f"sqlite:///{folder}/s.db"
    sweeper = {"storage": storage, "study_name": "s", "n_trials": n_trials, "direction": direction}
    hydra = {"sweeper": sweeper, "sweep": {"dir": str(folder)}, "overrides": {"hydra": []}}
    return OmegaConf.create({"objective": objective, "hydra": hydra})


@needs_optuna
def test_a_study_of_another_objective_is_refused(tmp_path):
    from sn6.sweeps.study import resume_study

    resume_study(study_config(tmp_path))
    resume_study(study_config(tmp_path))
    with user_error("conflict", "objective", "val_iou"):
        resume_study(study_config(tmp_path, "val_iou"))
    with user_error("conflict", "hydra.sweeper.direction", "minimize"):
        resume_study(study_config(tmp_path, "val_loss", "minimize"))


@needs_optuna
def test_a_stopped_trial_is_queued_again(tmp_path):
    """Of three trials one is complete, one was stopped, and one is trained by another process."""
    import optuna
    from filelock import FileLock

    from sn6.sweeps.study import resume_study
    from sn6.training.resume import JOB_LOCK

    config = study_config(tmp_path, n_trials=5)
    resume_study(config)
    study = optuna.load_study(study_name="s", storage=config.hydra.sweeper.storage)
    for seed in (1, 2, 3):
        trial = study.ask({"seed": optuna.distributions.IntDistribution(seed, seed)})
        if seed == 1:
            study.tell(trial, 0.5)
        job = {"overrides": [f"seed={seed}"], "status": "started"}
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}/job.json").write_text(json.dumps(job))
    with FileLock(tmp_path / "seed-3" / JOB_LOCK):
        resume_study(config)
    assert config.hydra.sweeper.n_trials == 4
    waiting, running, complete = (
        [trial.number for trial in study.get_trials(states=[optuna.trial.TrialState[state]])]
        for state in ("WAITING", "RUNNING", "COMPLETE")
    )
    assert (waiting, running, complete) == ([3], [2], [0])
    assert study.get_trials()[3].system_attrs["fixed_params"] == {"seed": 2}


def test_the_best_job_is_the_first():
    from sn6.sweeps.comparison import Job, best_first

    finished = [Job(str(value), {}, "finished", value, 1.0, "") for value in (0.3, 0.1, 0.2)]
    jobs = [Job("x", {}, "failed", None, 1.0, "reason"), *finished]
    assert [job.value for job in best_first(jobs, "val_loss")] == [0.1, 0.2, 0.3, None]
    assert [job.value for job in best_first(jobs, "val_f1")] == [0.3, 0.2, 0.1, None]


def test_a_gpu_has_one_job_at_a_time(tmp_path, monkeypatch):
    from sn6.sweeps.gpus import acquire_gpus

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExitStack() as first:
        assert acquire_gpus(["0", "1", "2"], 2, first) == ["0", "1"]
        with ExitStack() as second:
            assert acquire_gpus(["0", "1", "2"], 1, second) == ["2"]
    with ExitStack() as third:
        assert acquire_gpus(["0", "1", "2"], 3, third) == ["0", "1", "2"]
    with ExitStack() as fourth, user_error("not_found", "trainer.devices", 4):
        acquire_gpus(["0", "1", "2"], 4, fourth)


@pytest.mark.parametrize("text", ["a=1,b=2", "it's", "C:\\x y", "[1,2]", "{a}"])
def test_a_quoted_name_reaches_a_job_unchanged(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from sn6.config.composition import quote

    (override,) = OverridesParser.create().parse_overrides([f"name={quote(text)}"])
    assert override.value() == text or str(override.value()) == text


def test_a_finished_job_is_known_without_a_process(tmp_path):
    """It has the same overrides and config; values that the run resolved from null may be anything."""
    from hydra import compose, initialize_config_dir

    from sn6.config.composition import CONF, VERSION_BASE
    from sn6.sweeps.job import is_finished

    overrides = ["model=unet", "data.crop=64"]
    names = ["name=it", "group=it", "folder=it", "run_folder=it", "data.root=here", "trainer.accelerator=cpu"]

    def finished(*given):
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            return is_finished(compose("config", [*names, *given]), list(given), tmp_path)

    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", [*names, "name=it/1", "folder=there", *overrides])
    from sn6.config.composition import to_plain
    from sn6.training.resolved_config import resolve

    config = resolve(to_plain(config)).to_dict()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert not finished(*overrides)  # it may have been stopped
    (tmp_path / "metrics.json").write_text('{"val_f1": 0.5}')
    assert not finished(*overrides)
    for status in ("started", "failed"):
        (tmp_path / "job.json").write_text(json.dumps({"overrides": overrides, "status": status}))
        assert not finished(*overrides)
    (tmp_path / "job.json").write_text(json.dumps({"overrides": overrides, "status": "finished"}))
    assert finished(*overrides)
    assert finished(*overrides, "logger=wandb", "trainer.log_every_n_steps=3", "on_failed_job=stop")  # may change
    assert finished(*overrides, "model.classes=1")  # the default of the network
    assert not finished("model=unet", "data.crop=32")
    assert not finished(*overrides, "trainer.max_epochs=51")
    config["optimizer"]["lr"] = 0.5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert not finished(*overrides)  # conf/ has another default now
