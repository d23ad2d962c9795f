"""The jobs of a sweep compared: a table, a file and a figure."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from sn6.config.overrides import key_of
from sn6.errors import counted
from sn6.files import write_csv
from sn6.metrics.comparison import with_deviation
from sn6.sweeps.job_file import JOB_FILE, read_job
from sn6.sweeps.objective import MINIMIZED

TABLE_FILE, GROUPS_FILE, FIGURE_FILE = "sweep.csv", "sweep_seeds.csv", "sweep.png"
SEED = "seed"
ENDED = ("finished", "failed", "stopped")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job of a sweep that has ended, or was stopped.

    Attributes:
        folder: its name in the sweep's folder
        values: of the swept keys, as they were given
        status: "finished", "failed" or "stopped"
        value: of the objective, None where it failed
        seconds: wall time, None where it was killed with its sweep
        error: why it failed or stopped
    """

    folder: str
    values: dict[str, str]
    status: str
    value: float | None
    seconds: float | None
    error: str


def read_jobs(folder: Path, keys: Sequence[str]) -> list[Job]:
    """Read the jobs that have ended, of all processes that feed this sweep.

    Args:
        folder: of the sweep
        keys: the swept ones; other keys in which the jobs differ are added
    """
    paths = [path for path in sorted(folder.rglob(JOB_FILE)) if not any(".old" in part for part in path.parts)]
    ended = [(path, job) for path in paths if (job := read_job(path)).get("status") in ENDED]
    given = [{key_of(line): unquoted(line.partition("=")[2]) for line in job["overrides"]} for _, job in ended]
    others = dict.fromkeys(key for one in given for key in one)
    keys = [*keys, *(key for key in others if key not in keys and len({one.get(key) for one in given}) > 1)]
    return [
        Job(
            str(path.parent.relative_to(folder)),
            {key: one.get(key, "") for key in keys},
            job["status"],
            job.get("value"),
            job.get("seconds"),
            job.get("error", ""),
        )
        for (path, job), one in zip(ended, given, strict=True)
    ]


def unquoted(value: str) -> str:
    """Return the value of an override without the quotes that Hydra's grammar needs."""
    is_quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    return value[1:-1] if is_quoted else value


def best_first(jobs: Sequence[Job], objective: str) -> list[Job]:
    """Return finished jobs by their objective, then the others."""
    sign = 1 if objective in MINIMIZED else -1
    return sorted(jobs, key=lambda job: (job.value is None, sign * (job.value or 0.0)))


def write_comparison(jobs: Sequence[Job], objective: str, folder: Path) -> None:
    """Write `sweep.csv` and `sweep.png` to the sweep's folder, and print the table."""
    from sn6.plots.curves import sweep_figure
    from sn6.plots.tiles import save_figure

    keys = list(jobs[0].values)
    columns = [objective, *keys, "status", "seconds", "folder", "error"]
    rows = [[job.value, *job.values.values(), job.status, job.seconds, job.folder, job.error] for job in jobs]
    write_csv(folder / TABLE_FILE, columns, rows)
    table = Table(*columns[:-2], title=f"{folder}: {counted(len(jobs), 'job')}, best first")
    for row in rows:
        table.add_row(*map(format_cell, row[:-2]))
    Console(stderr=True).print(table)
    if SEED in keys:
        write_groups(jobs, objective, folder)
    finished = [(job.values, job.value) for job in jobs if job.value is not None]
    if finished:
        save_figure(sweep_figure(finished, objective), folder / FIGURE_FILE)
    log.info("%s", folder / TABLE_FILE)


def write_groups(jobs: Sequence[Job], objective: str, folder: Path) -> None:
    """Write `sweep_seeds.csv`, the means of finished jobs that differ in their seed only, and print the table."""
    groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for job in jobs:
        if job.value is not None:
            rest = tuple((key, value) for key, value in job.values.items() if key != SEED)
            groups.setdefault(rest, []).append(job.value)
    columns = [key for key in jobs[0].values if key != SEED]
    rows = [
        [mean(scores), stdev(scores) if len(scores) > 1 else None, len(scores), *dict(rest).values()]
        for rest, scores in groups.items()
    ]
    write_csv(folder / GROUPS_FILE, [objective, "standard_deviation", "seeds", *columns], rows)
    table = Table(f"{objective}, mean ± deviation (seeds)", *columns, title=f"{folder}: means over seeds")
    for rest, scores in groups.items():
        table.add_row(with_deviation(scores), *dict(rest).values())
    Console(stderr=True).print(table)
    log.info("differences with intervals: python -m sn6.compare %s", folder)


def format_cell(value: Any) -> str:
    """Return a number with four digits, None as nothing, everything else as it is."""
    try:
        return "" if value is None else f"{float(value):.4g}"
    except ValueError:
        return str(value)
