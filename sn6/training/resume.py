"""Going on after a stop: what is in a run's folder, and whether it is of the same run."""

import csv
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sn6.checkpoints.run_files import BEFORE_LAST, LAST
from sn6.errors import UserError, first_line

LOCK_FILE, TRAINING_FILE = LOCKS = (".lock", ".training")  # of the job of a sweep, of a run
log = logging.getLogger(__name__)

# Keys that a run that goes on may change: where and on what it runs, what it shows, and how long it trains.
FREE = (
    "name",
    "group",
    "folder",
    "run_folder",
    "resume",
    "objective",
    "on_failed_job",
    "stages",
    "logger",
    "callbacks.gallery",
    "callbacks.progress_bar",
    "callbacks.learning_rate",
    "callbacks.speed",
    "callbacks.resume_point",
    "callbacks.checkpoint.dirpath",
    "data.num_workers",
    "data.store_root",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.profiler",
    "trainer.log_every_n_steps",
)

NEWER = {"data.split": "columns"}  # keys that older runs were made without, and what they did then
FILLED_IN = ("model", "trainer.precision")  # keys that a run settles before it writes its config, where they are null
LONGER = ("trainer.max_epochs", "trainer.max_steps")  # a stopped run may train longer, a finished one is finished


def finished_metrics(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """What metrics.json holds where the run is finished.

    Raises:
        UserError: it was run with another config
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    check_same_config(folder, config, FREE)
    return json.loads(path.read_text())


def is_as_it_was(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the finished run in `folder` had this config, as it is before anything is filled in.

    What it leaves to the device or to given weights (null) may be anything.
    """
    differ = differences(folder, config, FREE)
    return all(now is None and is_under(key, FILLED_IN) for key, (_, now) in differ.items())


def check_same_config(folder: Path, config: dict[str, Any], free: tuple[str, ...] = FREE + LONGER) -> None:
    """Raises a UserError that names the keys, other than `free`, in which the run in `folder` differs."""
    differ = differences(folder, config, free)
    if differ:
        told = ", ".join(f"{key}={now} (was {was})" for key, (was, now) in list(differ.items())[:4])
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise UserError(
            f"{folder} is of a run with another config: {told}{more}; give these as they were, another name=, "
            "or resume=false to start over"
        )


def differences(folder: Path, config: dict[str, Any], free: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Key → (was, is) of the keys, other than `free`, in which the run in `folder` differs; empty without one."""
    path = folder / "config.yaml"
    if not path.exists():
        return {}
    was, now = NEWER | flat(yaml.safe_load(path.read_text())), NEWER | flat(config)
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key) and not is_under(key, free)]
    return {key: (was.get(key), now.get(key)) for key in keys}


def is_under(key: str, nodes: tuple[str, ...]) -> bool:
    """Whether `key` is one of `nodes` or lies below one."""
    return any(key == node or key.startswith(node + ".") for node in nodes)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    return {
        key: value
        for name, inner in node.items()
        for key, value in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint that can be read, and its step; None where the run has none.

    Raises:
        UserError: there are checkpoints and all are broken
    """
    import torch  # which a sweep's own process does without

    paths = [folder / name for name in (LAST, BEFORE_LAST)]
    paths = [path for path in paths if path.exists()]
    for path in paths:
        try:
            step = torch.load(path, map_location="cpu", weights_only=True)["global_step"]
        except Exception as error:  # zip, pickle and torch each raise their own
            aside = path.with_name(path.name + ".broken")  # or the next one would push it over the good one
            log.warning("%s is broken and left out, it lies in %s now (%s)", path, aside.name, first_line(error))
            with suppress(FileNotFoundError):  # another rank did it
                os.replace(path, aside)
            continue
        log.info("going on from %s, step %d", path, step)
        return path, step
    if paths:
        raise UserError(f"{folder / 'checkpoints'} holds broken checkpoints alone; start over by resume=false")
    return None


def move_aside(folder: Path) -> None:
    """Moves what an earlier run left in `folder` into a folder of its own beside it, and says so."""
    old = [path for path in folder.iterdir() if path.name not in LOCKS] if folder.exists() else []
    if not old:
        return
    number = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.old{n}").exists())
    aside = folder.with_name(f"{folder.name}.old{number}")
    aside.mkdir()
    for path in old:
        os.replace(path, aside / path.name)
    log.info("what was in %s lies in %s now", folder, aside)


def logged_before(metrics: Path, step: int) -> list[dict[str, Any]]:
    """The rows of a metrics.csv from before `step`: those after it are logged once more."""
    if not metrics.exists():
        return []
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last may be cut short
    rows = [row for row in rows if row["step"].isdigit() and int(row["step"]) < step]
    return [{key: value for key, value in row.items() if value} for row in rows]
