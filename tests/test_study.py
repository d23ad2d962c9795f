"""Optuna studies: what is searched, resuming after a stop, and errors of the storage."""

import json
import os
import signal

import pytest
from helpers.commands import assert_fails, read_metrics, start, wait_for_end
from helpers.errors import user_error
from helpers.sweeps import read_jobs, read_ranks, small_sweep, wait_until
from omegaconf import OmegaConf

optuna = pytest.importorskip("optuna")  # of the extra `sweep`


@pytest.mark.slow
def test_a_study_on_two_devices_that_is_killed_resumes(archive_root, tmp_path):
    sweep = small_sweep(
        archive_root,
        "sweep=optuna",
        "hydra.sweeper.n_trials=2",
        "data.crop=choice(32,64)",
        "trainer.devices=2",
        "trainer.max_epochs=2",
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
    assert len(jobs) == 2
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2  # one folder a job
    trials = optuna.load_study(study_name="it", storage=url).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert len(trials) == 2
    for path, job in jobs.items():
        first, second = read_ranks(path)
        assert first == second
        (trial,) = [trial for trial in trials if trial.params["optimizer.lr"] == first["lr"]]
        assert trial.params["data.crop"] == first["crop"]
        assert trial.params["loss"].replace("_", "") == first["loss"].lower()
        assert trial.value == job["value"] == read_metrics(path)["validation"]["f1"]


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("sqlite:////nowhere/at/all.db", "sqlite:////nowhere/at/all.db"),
        ("postgresql+nodriver://me:secret@127.0.0.1:9/db", "postgresql+nodriver://me:***@127.0.0.1:9/db"),
    ],
)
def test_a_storage_out_of_reach(sn6_run, archive_root, monkeypatch, storage, shown):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts
    more = ("sweep=optuna", "data.crop=64", f"hydra.sweeper.storage='{storage}'")
    done = sn6_run(*small_sweep(archive_root), *more)
    assert_fails(done, "unavailable", "hydra.sweeper.storage", shown)
    assert "secret" not in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "kind", "key", "value"),
    [
        ("objective=validation.loss", "conflict", "hydra.sweeper.direction", "maximize"),
        ("hydra.sweeper.direction=up", "conflict", "hydra.sweeper.direction", "up"),
        ("hydra.sweeper.n_trials=0", "invalid_value", "hydra.sweeper.n_trials", 0),
        ("hydra/launcher=submitit_slurm", "not_found", "cluster", "slurm"),
    ],
)
def test_an_invalid_search(sn6_run, archive_root, more, kind, key, value):
    done = sn6_run(*small_sweep(archive_root), "sweep=optuna", "data.crop=64", more)
    assert_fails(done, kind, key, value)


def study_config(folder, objective="validation.f1", direction="maximize", n_trials=2):
    """Return the part of a sweep's config that a study reads."""
    from omegaconf import OmegaConf

    storage = f"sqlite:///{folder}/s.db"
    sweeper = {"storage": storage, "study_name": "s", "n_trials": n_trials, "direction": direction}
    hydra = {"sweeper": sweeper, "sweep": {"dir": str(folder)}, "overrides": {"hydra": []}}
    return OmegaConf.create({"objective": objective, "hydra": hydra})


def test_a_study_of_another_objective_is_refused(tmp_path):
    from sn6.sweeps.study import resume_study

    resume_study(study_config(tmp_path))
    resume_study(study_config(tmp_path))
    with user_error("conflict", "objective", "validation.iou"):
        resume_study(study_config(tmp_path, "validation.iou"))
    with user_error("conflict", "hydra.sweeper.direction", "minimize"):
        resume_study(study_config(tmp_path, "validation.loss", "minimize"))


def test_a_stopped_trial_is_queued_again(tmp_path):
    """Of three trials one is complete, one was stopped, and one is trained by another process."""
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


def draw(folder, number, name="RandomSampler", seed=3, tell=True, **options):
    """Draw values as a sweep of `number` trials does, which opens its study first."""
    from sn6.sweeps.study import resume_study

    storage = f"sqlite:///{folder}/study.db"
    sampler = {"_target_": f"optuna.samplers.{name}", "seed": seed, **options}
    sweeper = {"storage": storage, "study_name": "it", "direction": "maximize", "n_trials": 99, "sampler": sampler}
    hydra = {"sweeper": sweeper, "sweep": {"dir": str(folder)}, "overrides": {"hydra": []}}
    config = OmegaConf.create({"objective": "validation.f1", "hydra": hydra})
    resume_study(config)
    changed = config.hydra.sweeper.sampler.seed
    told = [line for line in config.hydra.overrides.hydra if "seed" in line]
    assert told == ([] if changed == seed else [f"hydra.sweeper.sampler.seed={changed}"])
    made = getattr(optuna.samplers, name)(seed=changed, **options)
    study = optuna.load_study(study_name="it", storage=storage, sampler=made)
    values = []
    for _ in range(number):
        trial = study.ask()
        values.append((trial.suggest_float("lr", 0, 1), trial.suggest_int("crop", 1, 10**6)))
        if tell:
            study.tell(trial, 0.5)
    return values


@pytest.mark.parametrize("name", ["RandomSampler", "TPESampler"])
def test_a_study_with_a_seed_draws_new_values_after_a_stop(tmp_path, name):
    first, second = ([draw(tmp_path / folder, number, name) for number in (3, 2, 3)] for folder in ("a", "b"))
    assert first == second  # the seed still determines all values
    values = [value for part in first for value in part]
    assert len(set(values)) == len(values)
    assert first[0] == draw(tmp_path / "c", 3, name)  # a new study has the seed that was given
    assert first[0] != draw(tmp_path / "d", 3, name, seed=4)


def test_values_of_a_stopped_trial_are_not_drawn_again(tmp_path):
    (stopped,) = draw(tmp_path, 1, tell=False)
    assert stopped not in draw(tmp_path, 4)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_that_continues_by_the_stored_trials_keeps_its_seed(tmp_path):
    """Points of a quasi-random sequence in two parts are those in one, after the first, which is drawn at random."""
    parts = [draw(tmp_path / "a", number, "QMCSampler", scramble=True) for number in (3, 2)]
    assert [value for part in parts for value in part] == draw(tmp_path / "b", 5, "QMCSampler", scramble=True)
