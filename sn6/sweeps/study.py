"""A study of Optuna in a database: it can be reached, and it goes on where it was stopped."""

import json
import logging
import time
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from omegaconf import DictConfig, read_write
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sn6.errors import UserError, first_line
from sn6.sweeps.job import JOB_FILE
from sn6.sweeps.sweep import direction_of
from sn6.training.resume import LOCKS

DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}
OBJECTIVE = "objective"
TRIES = 4  # processes that start at once on a new database disturb each other
log = logging.getLogger(__name__)


def resume_study(config: DictConfig) -> None:
    """Makes `hydra.sweeper.n_trials` the trials that are still to do, and has stopped ones trained to their end.

    Args:
        config: of the sweep; its `hydra.sweeper` is changed

    Raises:
        UserError: the storage cannot be reached
    """
    sweeper, folder = config.hydra.sweeper, Path(config.hydra.sweep.dir)
    if not isinstance(sweeper.n_trials, int) or sweeper.n_trials < 1:
        raise UserError(f"hydra.sweeper.n_trials={sweeper.n_trials} does not do; it is 1 or more")
    folder.mkdir(parents=True, exist_ok=True)  # SQLite makes the file, but no folder
    study = open_study(sweeper.storage, sweeper.study_name, DIRECTIONS[direction_of(config)])
    if (other := study.user_attrs.get(OBJECTIVE, config.objective)) != config.objective:
        raise UserError(f"the study {study.study_name} is of objective={other}; give another name=...")
    study.set_user_attr(OBJECTIVE, config.objective)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if was_stopped(trial, folder):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)  # the same values, so the same folder, whose checkpoint it goes on from
    done = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if done:
        log.info("the study %s has %d of %d trials", study.study_name, done, sweeper.n_trials)
    with read_write(config.hydra):
        sweeper.n_trials = max(0, sweeper.n_trials - done)
        # Hydra wants to find the sweeper of each job as it is here
        config.hydra.overrides.hydra.append(f"hydra.sweeper.n_trials={sweeper.n_trials}")


def open_study(storage: str, name: str | None, direction: StudyDirection) -> Study:
    """The study of this name, new or as it is.

    Raises:
        UserError: the storage cannot be reached
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Hydra's sweeper says the same
    for left in reversed(range(TRIES)):
        try:
            study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
            break
        except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own
            if not left:
                raise UserError(
                    f"hydra.sweeper.storage={without_password(storage)} cannot be reached ({first_line(error)}); give "
                    "the URL of a database that can be, such as sqlite:///study.db, and install its driver"
                ) from None
            time.sleep(0.5)
    if study.direction != direction:
        raise UserError(f"the study {study.study_name} is to {study.direction.name.lower()}; give another name=...")
    return study


def without_password(url: str) -> str:
    """`postgresql://me:secret@host/db` → `postgresql://me:***@host/db`."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def was_stopped(trial: FrozenTrial, folder: Path) -> bool:
    """Whether a trial that the storage takes for running has a folder which no process is training in."""
    said = {f"{key}={value}" for key, value in trial.params.items()}
    for path in folder.rglob(JOB_FILE):
        if said <= set(json.loads(path.read_text())["words"]):
            try:
                for name in LOCKS:
                    with FileLock(path.parent / name, timeout=0):
                        pass
            except Timeout:
                return False
            return True
    return False
