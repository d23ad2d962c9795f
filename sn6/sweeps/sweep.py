"""A sweep as a whole: its overrides are checked before the first job, its jobs compared after the last."""

import logging
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from sn6.config.composition import compose_values, quote
from sn6.config.composition_errors import one_line_config_errors
from sn6.errors import UserError, one_line_errors
from sn6.sweeps.comparison import best_first, read_jobs, write_comparison
from sn6.sweeps.job_file import record_stopped_jobs
from sn6.sweeps.objective import direction_of
from sn6.training.external_launcher import external_launcher
from sn6.training.saved_config import CONFIG_FILE

log = logging.getLogger(__name__)


class Sweep(Callback):
    """Check a sweep at its start and compare its jobs at its end; Hydra calls it in no other run.

    Attributes:
        folder: of the sweep of this process, None before it has started
    """

    folder: ClassVar[Path | None] = None

    @classmethod
    def record_stop(cls, status: int) -> None:
        """Write to the `job.json` of jobs that were killed with their sweep, as joblib does, that they are stopped.

        Args:
            status: exit status of the sweep
        """
        if cls.folder is not None:
            record_stopped_jobs(cls.folder, status)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what no job could run with, and name the jobs' folders by the swept values.

        Raises:
            UserError: an unknown key or choice, an invalid value of all jobs, a storage out of reach, or one of several
                processes that all start the sweep
        """
        HydraConfig.instance().set_config(config)  # Hydra 1.3 does so for the jobs only; it knows the search path
        with exit_on_error(config.hydra.overrides.task):
            check_launcher(config)
            overrides = sweep_overrides(config)
            check_jobs(list(every_value(overrides)), may_fail=config.on_failed_job == "continue")
            name_folders(config, overrides)
            check_sweep_folder(Path(config.hydra.sweep.dir))
            Sweep.folder = Path(config.hydra.sweep.dir)
            if config.hydra.sweeper.get("direction") is not None:
                direction_of(config)
            if config.hydra.sweeper.get("storage") is not None:
                from sn6.sweeps.study import resume_study  # needs Optuna

                resume_study(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sweep.csv` and `sweep.png` to the sweep's folder, and print the table.

        Raises:
            UserError: jobs failed
        """
        folder = Path(config.hydra.sweep.dir)
        keys = [override.key_or_group for override in sweep_overrides(config) if is_swept(override)]
        with exit_on_error(config.hydra.overrides.task):
            jobs = best_first(read_jobs(folder, keys), config.objective)
            if jobs and keys:
                write_comparison(jobs, config.objective, folder)
            failed = [job for job in jobs if job.status == "failed"]
            if failed:
                raise UserError(
                    f"{len(failed)} of {len(jobs)} jobs of {folder} failed, one with: {failed[0].error}; the same "
                    f"command with name={folder.name} keeps the finished jobs and runs the others again",
                    kind="failed",
                    key=folder,
                    value=len(failed),
                )
            if keys == ["data.fold"]:
                log.info("next, when every fold has run, all as one result:\n  python -m sn6.score runs=%s", folder)


def check_sweep_folder(folder: Path) -> None:
    """Raise a UserError where the folder of a sweep is that of a run."""
    if (folder / CONFIG_FILE).exists():
        raise UserError(
            f"{folder} contains a run, no sweep; choose another name=", kind="conflict", key="name", value=folder.name
        )


@contextmanager
def exit_on_error(overrides: Sequence[str]) -> Iterator[None]:
    """End the process on an error: Hydra makes a warning of an exception in a callback and continues."""
    try:
        with one_line_errors(), one_line_config_errors(overrides):
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def check_launcher(config: DictConfig) -> None:
    """Raise a UserError where several processes would start the sweep, or SLURM is missing."""
    if program := external_launcher():
        raise UserError(
            f"{program} would start this sweep in each of its processes; run python -m sn6.run -m ..., which starts "
            "the processes of each job, or cluster=slurm",
            kind="conflict",
        )
    if config.hydra.runtime.choices["hydra/launcher"] == "submitit_slurm" and not shutil.which("srun"):
        raise UserError(
            "cluster=slurm: SLURM (srun) is not installed on this machine; leave out cluster=slurm, or run the command "
            "on the cluster",
            kind="not_found",
            key="cluster",
            value="slurm",
        )


def name_folders(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Tell Hydra, in its own part of the config, the folder of the sweep and what does not name a job's folder.

    Args:
        config: of the sweep; `config.hydra` is changed, the only way in which Hydra can be told
        overrides: of the sweep
    """
    constant = [override.key_or_group for override in overrides if not is_swept(override)]
    deletions = [override.input_line for override in overrides if override.is_delete()]
    with read_write(config.hydra), open_dict(config.hydra):
        every_job = config.hydra.overrides.hydra
        config.hydra.sweep.dir = str(config.hydra.sweep.dir)  # the name may hold swept values, and the time
        every_job.append(f"hydra.sweep.dir={quote(config.hydra.sweep.dir)}")
        every_job.append(f"hydra.job.config.override_dirname.exclude_keys={constant}")
        every_job.extend(deletions)  # Hydra's own grid would make `~key` into `~key=None`, which fails
        task = config.hydra.overrides.task
        config.hydra.overrides.task = [override for override in task if override not in deletions]


def sweep_overrides(config: DictConfig) -> list[Override]:
    """Return the overrides of the command line and those of `hydra.sweeper.params`, over which they win."""
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    return list({override.key_or_group: override for override in parsed}.values())


def is_swept(override: Override) -> bool:
    """Return whether an override stands for several values."""
    return bool(override.is_sweep_override())


def every_value(overrides: Sequence[Override]) -> Iterable[list[str]]:
    """Yield overrides of jobs in which each value of each key occurs once; of an interval or a range only the ends."""
    values = [values_of(override) for override in overrides]
    first = [texts[0] for texts in values]
    yield first
    for place, texts in enumerate(values):
        for text in texts[1:]:
            yield [*first[:place], text, *first[place + 1 :]]


def values_of(override: Override) -> list[str]:
    """Return `a=1,2` as `["a=1", "a=2"]`."""
    key, value = override.get_key_element(), override.value()
    if not is_swept(override):
        return [str(override.input_line)]
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    texts = [f"{key}={text}" for text in override.sweep_string_iterator()]
    return texts if isinstance(value, ChoiceSweep) else [texts[0], texts[-1]]


def check_jobs(jobs: Sequence[list[str]], may_fail: bool) -> None:
    """Check the config of each job, and warn of values with which single jobs are going to fail.

    Args:
        jobs: overrides of each
        may_fail: whether the sweep continues after a failed job

    Raises:
        UserError: an unknown key or choice, or an invalid value of all jobs
    """
    errors = []
    for overrides in jobs:
        try:
            check_job(overrides)
        except UserError as error:
            errors.append(error)
            if not may_fail or error.kind != "invalid_value":
                raise
    if len(errors) == len(jobs):
        raise errors[0]
    for message in dict.fromkeys(map(str, errors)):
        log.warning("%s; jobs with this value are going to fail", message)


def check_job(overrides: list[str]) -> None:
    """Compose and check the config of a job, and those of its stages, as the job itself does.

    Raises:
        UserError: a value is invalid
    """
    from sn6.training.config_check import check_types
    from sn6.training.stages import stage_configs

    values = compose_values(overrides, name="job", group="job", folder="job", run_folder="job")
    check_types(values)
    if values["stages"]:
        stage_configs(values, overrides)
