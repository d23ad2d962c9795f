"""A sweep as a whole: its words are checked before the first job, and its jobs are compared after the last."""

import json
import logging
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console
from rich.table import Table

from sn6.config import check, one_line_config_errors
from sn6.errors import UserError, one_line_errors
from sn6.files import write_csv
from sn6.sweeps.job import JOB_FILE, quote
from sn6.training.external_launcher import external_launcher
from sn6.training.stages import stage_configs

TABLE_FILE, FIGURE_FILE = "sweep.csv", "sweep.png"
FALLING = ("val_loss", "loss")  # objectives of which less is better
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job of a sweep that has ended.

    Attributes:
        folder: its name in the sweep's folder
        values: of the swept keys, as they were said
        status: "finished" or "failed"
        value: of the objective, None where it failed
        seconds: that it took
        error: why it failed
    """

    folder: str
    values: dict[str, str]
    status: str
    value: float | None
    seconds: float
    error: str


class Sweep(Callback):
    """Hydra calls it at the start and at the end of a sweep, and in no other run."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuses what no job could run with, and names the jobs' folders by what is swept.

        Raises:
            UserError: a key that the config lacks, a value that does not do, a storage that cannot be reached, one of
                several processes that all start the sweep
        """
        with exit_on_error(config.hydra.overrides.task):
            if program := external_launcher():
                raise UserError(
                    f"{program} would start this sweep in each of its processes; type python -m sn6.run -m ..., which "
                    "starts the processes of each job, or cluster=slurm"
                )
            overrides = sweep_overrides(config)
            for words in every_value(overrides):
                check_job(words)
            constant = [override.key_or_group for override in overrides if not is_swept(override)]
            deletions = [override.input_line for override in overrides if override.is_delete()]
            with read_write(config.hydra), open_dict(config.hydra):
                every_job = config.hydra.overrides.hydra
                config.hydra.sweep.dir = str(config.hydra.sweep.dir)  # the name may hold what is swept, and the time
                every_job.append(f"hydra.sweep.dir={quote(config.hydra.sweep.dir)}")
                every_job.append(f"hydra.job.config.override_dirname.exclude_keys={constant}")
                every_job.extend(deletions)  # Hydra's own grid would make `~key` into `~key=None`, which fails
                task = config.hydra.overrides.task
                config.hydra.overrides.task = [word for word in task if word not in deletions]
            if config.hydra.runtime.choices["hydra/launcher"] == "submitit_slurm" and not shutil.which("srun"):
                raise UserError("there is no SLURM here (no srun); leave out cluster=slurm, or type it on the cluster")
            if config.hydra.sweeper.get("direction") is not None:
                direction_of(config)
            if config.hydra.sweeper.get("storage") is not None:
                from sn6.sweeps.study import resume_study  # needs Optuna

                resume_study(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Leaves `sweep.csv` and `sweep.png` in the sweep's folder, and shows the table.

        Raises:
            UserError: jobs failed
        """
        folder = Path(config.hydra.sweep.dir)
        keys = [override.key_or_group for override in sweep_overrides(config) if is_swept(override)]
        with exit_on_error(config.hydra.overrides.task):
            jobs = best_first(read_jobs(folder, keys), config.objective)
            if jobs and keys:
                write_table(jobs, config.objective, folder)
            failed = [job for job in jobs if job.status == "failed"]
            if failed:
                raise UserError(
                    f"{len(failed)} of {len(jobs)} jobs of {folder} failed, one with: {failed[0].error}; the same "
                    f"command with name={folder.name} leaves those that are finished and tries the others again"
                )


@contextmanager
def exit_on_error(words: Sequence[str]) -> Iterator[None]:
    """Ends the process by what is raised: Hydra makes a warning of an exception in a callback and goes on."""
    try:
        with one_line_errors(), one_line_config_errors(words):
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def direction_of(config: DictConfig) -> str:
    """ "minimize" or "maximize", as a search by Optuna is told and as the objective wants it.

    Raises:
        UserError: these differ
    """
    told, wanted = str(config.hydra.sweeper.direction), "minimize" if config.objective in FALLING else "maximize"
    if told.rpartition(".")[2] != wanted:
        raise UserError(f"hydra.sweeper.direction={told} does not go with objective={config.objective}; set {wanted}")
    return wanted


def sweep_overrides(config: DictConfig) -> list[Override]:
    """The words of the command line and those of `hydra.sweeper.params`, which they go over."""
    words = [*(f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items())]
    by_key = {override.key_or_group: override for override in parse([*words, *config.hydra.overrides.task])}
    return list(by_key.values())


def parse(words: Sequence[str]) -> list[Override]:
    """The words as Hydra reads them."""
    return OverridesParser.create().parse_overrides(list(words))


def is_swept(override: Override) -> bool:
    """Whether it stands for several values."""
    return bool(override.is_sweep_override())


def every_value(overrides: Sequence[Override]) -> Iterable[list[str]]:
    """Words of jobs in which each value of each key comes once; of an interval or a range the ends alone."""
    words = [values_of(override) for override in overrides]
    first = [values[0] for values in words]
    yield first
    for place, values in enumerate(words):
        for word in values[1:]:
            yield [*first[:place], word, *first[place + 1 :]]


def values_of(override: Override) -> list[str]:
    """`a=1,2` → `["a=1", "a=2"]`."""
    key, value = override.get_key_element(), override.value()
    if not is_swept(override):
        return [str(override.input_line)]
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    words = [f"{key}={text}" for text in override.sweep_string_iterator()]
    return words if isinstance(value, ChoiceSweep) else [words[0], words[-1]]


def check_job(words: list[str]) -> None:
    """Composes the config of a job, and those of its stages, as the job itself would.

    Raises:
        UserError: it does not do
    """
    config = compose("config", words)
    with open_dict(config):
        config.name = config.group = config.folder = config.run_folder = "job"
    check(config)
    if config.stages:
        stage_configs(config, words)


def read_jobs(folder: Path, keys: Sequence[str]) -> list[Job]:
    """The jobs that have ended, of all processes that fed this sweep.

    Args:
        folder: of the sweep
        keys: that are swept; others in which the jobs differ are told as well
    """
    paths = [path for path in sorted(folder.rglob(JOB_FILE)) if not any(".old" in part for part in path.parts)]
    ended = [(path, job) for path in paths if (job := json.loads(path.read_text()))["status"] != "started"]
    said = [dict(word.lstrip("+").partition("=")[::2] for word in job["words"]) for _, job in ended]
    others = dict.fromkeys(key for one in said for key in one)
    keys = [*keys, *(key for key in others if key not in keys and len({one.get(key) for one in said}) > 1)]
    return [
        Job(
            str(path.parent.relative_to(folder)),
            {key: one.get(key, "") for key in keys},
            job["status"],
            job.get("value"),
            job["seconds"],
            job.get("error", ""),
        )
        for (path, job), one in zip(ended, said, strict=True)
    ]


def best_first(jobs: Sequence[Job], objective: str) -> list[Job]:
    """Finished before failed, by the objective."""
    sign = 1 if objective in FALLING else -1
    return sorted(jobs, key=lambda job: (job.value is None, sign * (job.value or 0.0)))


def short(value: Any) -> str:
    """A number to four digits, None as nothing, all else as it is."""
    try:
        return "" if value is None else f"{float(value):.4g}"
    except ValueError:
        return str(value)


def write_table(jobs: Sequence[Job], objective: str, folder: Path) -> None:
    """The table as a file and on screen, and the figure."""
    from sn6.plots.curves import sweep_figure
    from sn6.plots.tiles import save_figure

    keys = list(jobs[0].values)
    columns = [objective, *keys, "status", "seconds", "folder", "error"]
    rows = [[job.value, *job.values.values(), job.status, job.seconds, job.folder, job.error] for job in jobs]
    write_csv(folder / TABLE_FILE, columns, rows)
    table = Table(*columns[:-2], title=f"{folder}: {len(jobs)} jobs, best first")
    for row in rows:
        table.add_row(*map(short, row[:-2]))
    Console(stderr=True).print(table)
    finished = [(job.values, job.value) for job in jobs if job.value is not None]
    if finished:
        save_figure(sweep_figure(finished, objective), folder / FIGURE_FILE)
    log.info("%s", folder / TABLE_FILE)
