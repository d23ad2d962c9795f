"""A sweep trains what it says, on any number of devices, goes on after a stop, and compares its jobs."""

import csv
import json
import os
import signal
import time
from contextlib import ExitStack

import pytest
from helpers.commands import small_run, start, wait_for_end
from helpers.wandb_file import read_run

needs_optuna = pytest.mark.usefixtures("optuna")


@pytest.fixture
def optuna():
    """Of the extra `sweep`."""
    return pytest.importorskip("optuna")


def line(root, *more, name="it"):
    """A sweep of small runs whose ranks tell what they train with."""
    tell = ("+callbacks.tell._target_=stopping.TellConfig", "trainer.limit_val_batches=null")
    return ["-m", *small_run(), *tell, f"data.root={root}", f"name={name}", *more]


def jobs(folder):
    """job.json of each job, by the job's folder."""
    found = {path.parent: json.loads(path.read_text()) for path in folder.glob("*/job.json")}
    return {path: job for path, job in found.items() if job["status"] != "started"}


def told(folder):
    """What each rank of a job trained with."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def wait_for(condition, process):
    """Until it holds."""
    for _ in range(1500):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("it never came")


def test_a_grid_over_devices_records_a_failed_job_and_goes_on(archive_root, tmp_path):
    sweep = line(archive_root, "trainer.devices=1,2", "data.batch_size=1,2", "logger=wandb")
    status, said = wait_for_end(start(tmp_path, sweep, NETRC=str(tmp_path / "none"), WANDB_SILENT="true"))
    assert status == 1
    assert "1 of 4 jobs of outputs/it failed" in said.splitlines()[-1]
    assert "data.batch_size=1 is the total and cannot be dealt to 2 devices" in said.splitlines()[-1]
    folder = tmp_path / "outputs/it"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["it"]
    done = jobs(folder)
    assert {path.name for path in done} == {
        f"data.batch_size={batch},trainer.devices={devices}" for batch in (1, 2) for devices in (1, 2)
    }
    values = {}
    for path, job in done.items():
        batch, devices = (int(part.partition("=")[2]) for part in path.name.split(","))
        if (batch, devices) == (1, 2):
            assert job["status"] == "failed"
            assert not (path / "metrics.json").exists()
            continue
        assert job["value"] == metrics(path)["val_f1"]
        assert [rank["ranks"] for rank in told(path)] == [devices] * devices
        (run,) = [read_run(part) for part in path.glob("wandb/offline-run-*")]
        assert (run["group"], run["name"]) == ("it", f"it/{path.name}")
        values[batch, devices] = metrics(path)["val_loss"]
    assert values[2, 1] == pytest.approx(values[2, 2], rel=1e-4)  # the same training
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished"] * 3 + ["failed"]
    scores = [float(row["val_f1"]) for row in rows[:3]]
    assert scores == sorted(scores, reverse=True)
    assert {(row["trainer.devices"], row["data.batch_size"]) for row in rows} == {(a, b) for a in "12" for b in "12"}
    assert (folder / "sweep.png").stat().st_size > 1000
    before = {path: (path / "metrics.json").stat().st_mtime_ns for path, job in done.items() if "value" in job}
    status, said = wait_for_end(start(tmp_path, [*sweep[:-1], "on_failed_job=stop"]))
    assert status == 1
    assert {path: (path / "metrics.json").stat().st_mtime_ns for path in before} == before
    assert "data.batch_size=1,trainer.devices=1 is finished" in said
    assert "data.batch_size=2,trainer.devices=1 is finished" not in said  # it comes after the one that fails


@needs_optuna
def test_a_study_on_two_devices_that_is_killed_goes_on(archive_root, tmp_path):
    import optuna

    sweep = line(
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
        wait_for(lambda: len(jobs(folder)) == 1 and len(list(folder.glob("*/checkpoints/last.ckpt"))) == 2, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (stopped,) = {path.parent.parent for path in folder.glob("*/checkpoints/last.ckpt")} - set(jobs(folder))
    status, said = wait_for_end(start(tmp_path, sweep))
    assert status == 0, said
    assert f"going on from {stopped}" in said
    done = jobs(folder)
    assert len(done) == 3
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 3  # one folder a job
    trials = optuna.load_study(study_name="it", storage=url).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert len(trials) == 3
    for path, job in done.items():
        one, other = told(path)
        assert one == other
        (trial,) = [trial for trial in trials if trial.params["optimizer.lr"] == one["lr"]]
        assert trial.params["data.crop"] == one["crop"]
        assert trial.params["loss"].replace("_", "") == one["loss"].lower()
        assert trial.value == job["value"] == metrics(path)["val_f1"]


def test_a_sweep_that_is_told_to_stop_stops_its_job_at_a_checkpoint(archive_root, tmp_path):
    sweep = line(archive_root, "seed=1,2", "trainer.max_epochs=40", "callbacks.resume_point.every_n_steps=1")
    process = start(tmp_path, sweep)
    wait_for(lambda: list(tmp_path.glob("outputs/it/seed=1/checkpoints/last.ckpt")), process)
    process.terminate()
    status, said = wait_for_end(process)
    assert status == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on from" in said
    assert not (tmp_path / "outputs/it/seed=2").exists()


@needs_optuna
def test_jobs_at_the_same_time(archive_root, tmp_path):
    sweep = line(archive_root, "loss=bce,focal_dice", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    unnamed = [word for word in sweep if not word.startswith("name=")]
    status, said = wait_for_end(start(tmp_path, unnamed))
    assert status == 0, said
    (folder,) = (tmp_path / "outputs").iterdir()  # the default name holds the loss and the time
    assert {path.name: job["status"] for path, job in jobs(folder).items()} == {
        "loss=bce": "finished",
        "loss=focal_dice": "finished",
    }
    named = [*unnamed, f"name={folder.name}", "trainer.max_epochs=2"]
    status, said = wait_for_end(start(tmp_path, named))
    assert status == 1
    assert "another config: trainer.max_epochs=2 (was 1)" in said
    assert {job["status"] for job in jobs(folder).values()} == {"finished"}  # what there is stays


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["optimizer.lrr=1,2"], ["no 'optimizer.lrr'", "lr, weight_decay"]),
        (["optimizer.lr=1e-3,high"], ["lr='high'"]),
        (["model=ternausnet,unett"], ["model=unett is unknown", "ternausnet"]),
        (["seed=range(0,3)", "data.crops=5"], ["no 'data.crops'"]),
        (["sweep=nosuch"], ["sweep=nosuch is unknown", "grid, optuna"]),
        (["hydra/sweeper=nosuch"], ["hydra/sweeper=nosuch", "sn6[sweep]"]),
        (["stages={eo:['data=eo','loss=no']}", "seed=1,2"], ["loss=no is unknown"]),
    ],
)
def test_what_no_job_could_run_with_is_told_before_the_first(sn6_run, archive_root, tmp_path, more, parts):
    fails(sn6_run(*line(archive_root), *more), *parts)
    assert not list(tmp_path.glob("outputs/it/*=*"))


def test_a_sweep_in_each_process_of_torchrun_is_refused(sn6_run, archive_root, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    fails(sn6_run(*line(archive_root), "seed=1,2"), "torchrun would start this sweep in each", "python -m sn6.run -m")


@needs_optuna
@pytest.mark.parametrize(
    ("storage", "parts"),
    [
        ("sqlite:////nowhere/at/all.db", ["storage=sqlite:////nowhere/at/all.db cannot be reached"]),
        ("postgresql+nodriver://me:secret@127.0.0.1:9/db", ["postgresql+nodriver://me:***@127.0.0.1:9/db"]),
    ],
)
def test_a_storage_that_cannot_be_reached(sn6_run, archive_root, storage, parts):
    done = sn6_run(*line(archive_root), "sweep=optuna", "data.crop=64", f"hydra.sweeper.storage='{storage}'")
    fails(done, *parts, "give the URL of a database")
    assert "secret" not in done.err.splitlines()[-1]


@needs_optuna
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("objective=val_loss", "hydra.sweeper.direction=maximize does not go with objective=val_loss; set minimize"),
        ("hydra.sweeper.direction=up", "hydra.sweeper.direction=up does not go with objective=val_f1; set maximize"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0 does not do; it is 1 or more"),
        ("hydra/launcher=submitit_slurm", "there is no SLURM here"),
    ],
)
def test_a_search_that_does_not_do(sn6_run, archive_root, more, says):
    fails(sn6_run(*line(archive_root), "sweep=optuna", "data.crop=64", more), says)


@needs_optuna
def test_a_study_of_another_objective(tmp_path):
    from omegaconf import OmegaConf

    from sn6.errors import UserError
    from sn6.sweeps.study import resume_study

    def config(objective, direction):
        sweeper = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s", "n_trials": 2, "direction": direction}
        hydra = {"sweeper": sweeper, "sweep": {"dir": str(tmp_path)}, "overrides": {"hydra": []}}
        return OmegaConf.create({"objective": objective, "hydra": hydra})

    resume_study(config("val_f1", "maximize"))
    resume_study(config("val_f1", "maximize"))
    with pytest.raises(UserError, match="is of objective=val_f1; give another name"):
        resume_study(config("val_iou", "maximize"))
    with pytest.raises(UserError, match="is to maximize; give another name"):
        resume_study(config("val_loss", "minimize"))


def test_the_best_job_stands_first_where_less_is_better():
    from sn6.sweeps.sweep import Job, best_first

    finished = [Job(str(value), {}, "finished", value, 1.0, "") for value in (0.3, 0.1, 0.2)]
    jobs = [Job("x", {}, "failed", None, 1.0, "why"), *finished]
    assert [job.value for job in best_first(jobs, "val_loss")] == [0.1, 0.2, 0.3, None]
    assert [job.value for job in best_first(jobs, "val_f1")] == [0.3, 0.2, 0.1, None]


def test_gpus_go_to_one_job_at_a_time(tmp_path, monkeypatch):
    from sn6.errors import UserError
    from sn6.sweeps.job import acquire_gpus

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExitStack() as first:
        assert acquire_gpus(["0", "1", "2"], 2, first) == ["0", "1"]
        with ExitStack() as second:
            assert acquire_gpus(["0", "1", "2"], 1, second) == ["2"]
    with ExitStack() as third:
        assert acquire_gpus(["0", "1", "2"], 3, third) == ["0", "1", "2"]
    with ExitStack() as fourth, pytest.raises(UserError, match="there are 3 GPUs here"):
        acquire_gpus(["0", "1", "2"], 4, fourth)


def test_names_with_any_sign_reach_a_job_as_they_are():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from sn6.sweeps.job import quote

    for text in ("a=1,b=2", "it's", "C:\\x y", "[1,2]", "{a}"):
        (override,) = OverridesParser.create().parse_overrides([f"name={quote(text)}"])
        assert override.value() == text or str(override.value()) == text


def test_a_finished_job_is_known_without_a_process(tmp_path):
    """By its words and its config; what null left to the device and to the weights may be anything."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from sn6.config import CONF, VERSION_BASE
    from sn6.sweeps.job import is_finished

    def finished(*said):
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            config = compose("config", ["name=it", "group=it", "folder=it", "data.root=here", *said])
            return is_finished(config, list(said), tmp_path)

    said = ["model=unet", "data.crop=64"]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", ["name=it/1", "group=it", "folder=there", "data.root=here", *said])
    assert config.trainer.precision is None
    assert config.model.classes is None
    config.trainer.precision, config.model.classes = "bf16-mixed", 1  # as a run settles them
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    assert not finished(*said)  # nothing tells that it came to its end
    (tmp_path / "metrics.json").write_text('{"val_f1": 0.5}')
    assert not finished(*said)
    for status in ("started", "failed"):
        (tmp_path / "job.json").write_text(json.dumps({"words": said, "status": status}))
        assert not finished(*said)
    (tmp_path / "job.json").write_text(json.dumps({"words": said, "status": "finished"}))
    assert finished(*said)
    assert finished(*said, "logger=wandb", "trainer.devices=2", "on_failed_job=stop")  # what a run may change
    assert not finished(*said, "model.classes=1")  # which it was; but the run itself has to tell
    assert not finished("model=unet", "data.crop=32")
    assert not finished(*said, "trainer.max_epochs=51")
    config.optimizer.lr = 0.5
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    assert not finished(*said)  # conf/ has another default now
