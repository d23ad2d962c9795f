"""A study of Optuna in a database: open it, and resume it after a stop."""

import logging
import time
from pathlib import Path

import numpy as np
import optuna
from omegaconf import DictConfig, OmegaConf, read_write
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sn6.errors import UserError, first_line
from sn6.sweeps.job_file import JOB_FILE, is_running, read_job
from sn6.sweeps.objective import direction_of

DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}
OBJECTIVE = "objective"
CONTINUING = ("GridSampler", "QMCSampler")  # which need one seed for all trials
TRIES = 4  # processes that start together on a new database disturb one another
log = logging.getLogger(__name__)


def resume_study(config: DictConfig) -> None:
    """Reduce `hydra.sweeper.n_trials` to the trials that are missing, queue stopped ones again, and draw new values.

    Args:
        config: of the sweep; its `hydra.sweeper` is changed

    Raises:
        UserError: the storage is out of reach, or the study has another objective
    """
    sweeper, folder = config.hydra.sweeper, Path(config.hydra.sweep.dir)
    if not isinstance(sweeper.n_trials, int) or sweeper.n_trials < 1:
        raise UserError(
            f"invalid hydra.sweeper.n_trials={sweeper.n_trials}: must be at least 1",
            kind="invalid_value",
            key="hydra.sweeper.n_trials",
            value=sweeper.n_trials,
        )
    folder.mkdir(parents=True, exist_ok=True)  # SQLite makes the file, but no folder
    study = open_study(sweeper.storage, sweeper.study_name, DIRECTIONS[direction_of(config)])
    if (other := study.user_attrs.get(OBJECTIVE, config.objective)) != config.objective:
        raise UserError(
            f"the study {study.study_name} has objective={other}; choose another name=...",
            kind="conflict",
            key="objective",
            value=config.objective,
        )
    study.set_user_attr(OBJECTIVE, config.objective)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if was_stopped(trial, folder):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)  # the same values, so the same folder, whose checkpoint it resumes from
    done = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if done:
        log.info("the study %s has %d of %d trials", study.study_name, done, sweeper.n_trials)
    changed = {"n_trials": max(0, sweeper.n_trials - done)}
    if (seed := next_seed(sweeper, len(study.get_trials(deepcopy=False)))) is not None:
        changed["sampler.seed"] = seed
    with read_write(config.hydra):
        for key, value in changed.items():
            OmegaConf.update(sweeper, key, value)
            # Hydra compares the sweeper of each job with this one
            config.hydra.overrides.hydra.append(f"hydra.sweeper.{key}={value}")


def next_seed(sweeper: DictConfig, trials: int) -> int | None:
    """Return the seed with which the sampler draws other values than for the trials that the study has.

    A sampler that starts again with its first seed would draw its first values again.

    Args:
        sweeper: node of the config
        trials: number of trials in the study

    Returns:
        None where the seed stays: in a new study, without a seed, and for samplers that continue by what is stored.
    """
    sampler = sweeper.get("sampler") or {}
    seed = sampler.get("seed")
    if seed is None or not trials or str(sampler.get("_target_")).endswith(CONTINUING):
        return None
    return int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])


def open_study(storage: str, name: str | None, direction: StudyDirection) -> Study:
    """Open the study of this name, or create it.

    Raises:
        UserError: the storage is out of reach, or the study has the other direction
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Hydra's sweeper says the same
    for left in reversed(range(TRIES)):
        try:
            study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
            break
        except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own
            if not left:
                raise UserError(
                    f"cannot open hydra.sweeper.storage={without_password(storage)} ({first_line(error)}); set the URL "
                    "of a reachable database, such as sqlite:///study.db, and install its driver",
                    kind="unavailable",
                    key="hydra.sweeper.storage",
                    value=without_password(storage),
                ) from None
            time.sleep(0.5)
    if study.direction != direction:
        raise UserError(
            f"the study {study.study_name} has direction={study.direction.name.lower()}; choose another name=...",
            kind="conflict",
            key="hydra.sweeper.direction",
            value=direction.name.lower(),
        )
    return study


def without_password(url: str) -> str:
    """Return a URL without its password: `postgresql://me:secret@host/db` → `postgresql://me:***@host/db`."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def was_stopped(trial: FrozenTrial, folder: Path) -> bool:
    """Return whether a trial that the storage takes for running has a folder in which no process is training."""
    given = {f"{key}={value}" for key, value in trial.params.items()}
    for path in folder.rglob(JOB_FILE):
        if given <= set(read_job(path).get("overrides", [])):
            return not is_running(path.parent)
    return False
