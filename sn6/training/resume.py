"""Resume a stopped run: what is in its folder, and whether it is the same run."""

import csv
import io
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sn6.callbacks.epoch_loss import EPOCH_LOSS
from sn6.checkpoints.loading import load_tensors
from sn6.checkpoints.run_files import BEFORE_LAST, LAST
from sn6.checkpoints.torch_file import read_torch_file
from sn6.errors import UserError, first_line
from sn6.files import read_json
from sn6.training.run_identity import differences
from sn6.training.run_inputs import check_inputs, input_keys, is_same_input, read_inputs, saved_inputs
from sn6.training.saved_config import CONFIG_FILE, saved_config

METRICS_FILE, ERROR_FILE = "metrics.json", "error.txt"
JOB_LOCK, TRAINING_LOCK = LOCKS = (".lock", ".training")  # of a sweep's job, of a run
SHOWN = 4  # differing keys that a message names
log = logging.getLogger(__name__)


def finished_metrics(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the contents of metrics.json if the run is finished, else None; an empty or cut file is none.

    Raises:
        UserError: it was run with another config or on other data, or the file is of another program
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return None
    try:
        metrics = read_json(path)
    except UserError as error:
        if error.kind != "unreadable":
            raise
        log.warning("%s; the run is treated as not finished", error)
        return None
    is_old = "f1" in metrics and "test" not in metrics
    if not (is_old or is_complete(metrics)):
        raise UserError(
            f"{path} is not of a run of sn6; remove it, choose another name=, or set resume=false to start over",
            kind="wrong_data",
            key=path,
        )
    check_same_run(folder, config, may_train_longer=False)
    log.info("%s is finished; set another name=... to run again, or resume=false to start over", folder)
    if is_old:
        log.warning("%s was written by an older version of sn6, whose keys are not nested", path)
    return metrics


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Return whether the contents of a metrics.json are those that a finished run writes."""
    parts = [metrics.get(name) for name in ("test", "validation", "operating_point")]
    return all(isinstance(part, dict) and isinstance(part.get("f1"), int | float | None) for part in parts)


def is_same_run(folder: Path, config: dict[str, Any]) -> bool:
    """Return whether the finished run in `folder` had this config, and read the same data.

    Raises:
        UserError: a file in the folder is broken
    """
    try:
        check_same_run(folder, config, may_train_longer=False)
    except UserError as error:
        if error.kind != "conflict":
            raise
        return False
    return True


def check_same_run(folder: Path, config: dict[str, Any], may_train_longer: bool) -> None:
    """Raise a UserError that names what differs if the run in `folder` had another config or read other data."""
    if not (folder / CONFIG_FILE).exists():
        return
    recorded, inputs = saved_inputs(folder), read_inputs(config)
    differ = {
        key: values
        for key, values in differences(saved_config(folder), config, may_train_longer).items()
        if not is_same_input(key, values[0], config, recorded, inputs)
    }
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
    check_inputs(folder, config, inputs)


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run in `folder` has trained as far as its first checkpoint."""
    return any((folder / name).exists() for name in (LAST, BEFORE_LAST))


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Return the newest readable checkpoint and its step; None where the run has none.

    Raises:
        UserError: all checkpoints are broken
    """
    paths = [path for path in (folder / LAST, folder / BEFORE_LAST) if path.exists()]
    for path in paths:
        try:
            step = int(read_torch_file(path)["global_step"])
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


def read_best(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the best checkpoint of a run.

    Args:
        path: of the checkpoint
        config: of the run

    Raises:
        UserError: it is missing, broken or of another run
    """
    advice = "restore it from a copy, or start over with resume=false"
    if not path.exists():
        raise UserError(f"the best checkpoint {path} is missing; {advice}", kind="not_found", key=path)
    checkpoint = load_tensors(path, "checkpoint")
    if not is_of_run(checkpoint, config):
        raise UserError(f"the best checkpoint {path} is of another run; {advice}", kind="conflict", key=path)
    return checkpoint


def is_of_run(checkpoint: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a run of this config has written a checkpoint, wherever its data and weights were."""
    saved = (checkpoint.get("hyper_parameters") or {}).get("config") or {}
    differ = differences(saved, config, may_train_longer=True).keys() - set(input_keys(config))
    return "callbacks" in checkpoint and not differ


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
    """Read the rows of a metrics.csv from before `step`: those after it are logged once more.

    So is the mean of the epoch that ends at `step`, as the checkpoint is written before the epoch ends. A last row that
    was cut short is left out, and so are all rows of a file that is broken or foreign.
    """
    try:
        text = metrics.read_bytes().decode()
        complete = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(complete, newline="")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s cannot be read (%s); the values before step %d are lost", metrics, first_line(error), step)
        return []
    whole = [row for row in rows if None not in row and None not in row.values()]
    before = [row for row in whole if row.get("step", "").isdecimal() and int(row["step"]) < step]
    before = [row for row in before if int(row["step"]) < step - 1 or not row.get(EPOCH_LOSS)]
    return [{key: value for key, value in row.items() if value} for row in before]
