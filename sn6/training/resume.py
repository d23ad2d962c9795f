"""Resume a stopped run: what is in its folder, and whether it is the same run."""

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
from sn6.training.run_identity import differences

ERROR_FILE = "error.txt"
JOB_LOCK, TRAINING_LOCK = LOCKS = (".lock", ".training")  # of a sweep's job, of a run
SHOWN = 4  # differing keys that a message names
log = logging.getLogger(__name__)


def finished_metrics(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the contents of metrics.json if the run is finished, else None.

    Raises:
        UserError: it was run with another config
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    check_same_config(folder, config, may_train_longer=False)
    metrics = json.loads(path.read_text())
    log.info("%s is finished; set another name=... to run again, or resume=false to start over", folder)
    if "test" not in metrics:
        log.warning("%s was written by an older version of sn6, whose keys are not nested", path)
    return metrics


def is_same_run(folder: Path, config: dict[str, Any]) -> bool:
    """Return whether the finished run in `folder` had this config."""
    return not differences(saved_config(folder), config, may_train_longer=False)


def check_same_config(folder: Path, config: dict[str, Any], may_train_longer: bool) -> None:
    """Raise a UserError that names the keys in which the run in `folder` differs, if there are any."""
    if not (folder / "config.yaml").exists():
        return
    differ = differences(saved_config(folder), config, may_train_longer)
    if differ:
        listed = ", ".join(f"{key}={new} (was {old})" for key, (old, new) in list(differ.items())[:SHOWN])
        more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        first = next(iter(differ))
        raise UserError(
            f"{folder} contains a run with another config: {listed}{more}; restore these values, choose another name=, "
            "or set resume=false to start over",
            kind="conflict",
            key=first,
            value=differ[first][1],
        )


def saved_config(folder: Path) -> dict[str, Any]:
    """Read the config.yaml of a run; empty where there is none."""
    path = folder / "config.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run in `folder` has trained as far as its first checkpoint."""
    return any((folder / name).exists() for name in (LAST, BEFORE_LAST))


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Return the newest readable checkpoint and its step; None where the run has none.

    Raises:
        UserError: all checkpoints are broken
    """
    import torch  # which the process of a sweep does without

    paths = [path for path in (folder / LAST, folder / BEFORE_LAST) if path.exists()]
    for path in paths:
        try:
            step = torch.load(path, map_location="cpu", weights_only=True)["global_step"]
        except Exception as error:  # zip, pickle and torch each raise their own
            aside = path.with_name(path.name + ".broken")  # else it would replace the good one at the next checkpoint
            log.warning("%s is broken (%s); moved to %s", path, first_line(error), aside.name)
            with suppress(FileNotFoundError):  # another rank did it
                os.replace(path, aside)
            continue
        log.info("resuming from %s, step %d", path, step)
        return path, step
    if paths:
        raise UserError(
            f"{paths[0].parent}: all checkpoints are broken; start over with resume=false",
            kind="unreadable",
            key=paths[0].parent,
        )
    return None


def move_aside(folder: Path) -> None:
    """Move the files of an earlier run to a new folder beside `folder`."""
    old = [path for path in folder.iterdir() if path.name not in LOCKS] if folder.exists() else []
    if not old:
        return
    number = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.old{n}").exists())
    aside = folder.with_name(f"{folder.name}.old{number}")
    aside.mkdir()
    for path in old:
        os.replace(path, aside / path.name)
    log.info("moved the files in %s to %s", folder, aside)


def rows_before(metrics: Path, step: int) -> list[dict[str, Any]]:
    """Read the rows of a metrics.csv from before `step`: those after it are logged once more."""
    if not metrics.exists():
        return []
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last may be cut short
    rows = [row for row in rows if row["step"].isdigit() and int(row["step"]) < step]
    return [{key: value for key, value in row.items() if value} for row in rows]
