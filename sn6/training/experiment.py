"""A run: its stages one after another, or the one training that it is, and the reason if it ends early."""

import json
import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from sn6.config.composition import to_plain
from sn6.config.composition_errors import one_line_config_errors
from sn6.config.overrides import key_of
from sn6.config.types import SWEEP_GROUPS
from sn6.errors import UserError
from sn6.files import exclusive_lock, write_text
from sn6.processes import keep_freed_memory
from sn6.signals import Stopped
from sn6.training.config_check import check_types
from sn6.training.external_launcher import require_run_name
from sn6.training.loggers import is_rank_zero
from sn6.training.report import print_results
from sn6.training.resolved_config import resolve
from sn6.training.resume import ERROR_FILE, METRICS_FILE, TRAINING_LOCK, move_aside
from sn6.training.saved_config import CONFIG_FILE
from sn6.training.stage import train
from sn6.training.stages import stage_configs

log = logging.getLogger(__name__)


def start_run(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Run what the command line says, see `run`.

    Args:
        config: as Hydra composes it
        overrides: of the command line
    """
    require_run_name(config)
    return run(to_plain(config), overrides)


def run(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Train the stages of a run one after another, or the one training that it is; one process at a time in a folder.

    Args:
        values: the config, resolved
        overrides: of the command line, which win over those of a stage

    Returns:
        The metrics of the last stage, with those of every stage in `stages`.

    Raises:
        UserError: invalid input; the reason is in `error.txt` of the run's folder
    """
    keep_freed_memory()
    folder = Path(values["folder"])
    check_no_sweep(folder, values.get("stages"))
    lock = exclusive_lock(folder / TRAINING_LOCK, f"trains in {folder}") if is_rank_zero() else nullcontext()
    with record_error(folder), one_line_config_errors(overrides), lock:
        for override in overrides:
            if (group := key_of(override)) in SWEEP_GROUPS:
                raise UserError(f"{group}=... is for sweeps; add -m to the command", kind="conflict", key=group)
        check_types(values)
        stages = stage_configs(values, overrides) if values["stages"] else None
        config = None if stages else resolve(dict(values))
        if not values["resume"]:  # after the checks: a command that is refused moves nothing
            rank_zero_only(move_aside)(folder)
        if config is None:
            return train_stages(stages or {}, folder)
        metrics = train(config)
        rank_zero_only(print_results)({values["name"]: metrics}, config.to_dict())
        return metrics


def check_no_sweep(folder: Path, stages: Any) -> None:
    """Raise a UserError where the folder of a run contains those of other runs, as that of a sweep and `outputs` do."""
    if (folder / CONFIG_FILE).exists() or not folder.is_dir():
        return
    runs = {path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}")}
    if isinstance(stages, Mapping):
        runs -= set(stages)
    if runs:
        raise UserError(
            f"{folder} contains other runs, such as {min(runs)}; choose another name=",
            kind="conflict",
            key="name",
            value=folder.name,
        )


def train_stages(stages: Mapping[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Train stage by stage, and write the joint metrics.json: that of the last stage, and all of them in `stages`."""
    metrics = {}
    for number, (name, values) in enumerate(stages.items(), start=1):
        rank_zero_only(log.info)("\nstage %d of %d: %s", number, len(stages), name)
        metrics[name] = train(resolve(values))
    joint = metrics[name] | total_timing(metrics) | {"stages": metrics}
    rank_zero_only(write_text)(folder / METRICS_FILE, json.dumps(joint, indent=2) + "\n")
    rank_zero_only(print_results)(metrics, values)
    return joint


def total_timing(metrics: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the `timing` of all stages together; nothing where one is of an older version, which has none."""
    if not all("timing" in one for one in metrics.values()):
        return {}
    timings = [one["timing"] for one in metrics.values()]
    return {"timing": {name: round(sum(one[name] for one in timings), 1) for name in timings[0]}}


@contextmanager
def record_error(folder: Path) -> Iterator[None]:
    """Write `error.txt` to the run's folder when it fails; leave no folder of a run that was refused at once.

    A finished run stays as it is when a command is refused for it.
    """
    path = folder / ERROR_FILE
    with suppress(OSError):
        rank_zero_only(path.unlink)()
    try:
        yield
    except (Exception, Stopped) as error:
        with suppress(OSError):  # another rank was first
            if [path.name for path in folder.iterdir()] == [TRAINING_LOCK]:
                (folder / TRAINING_LOCK).unlink()
                folder.rmdir()
                if folder.parent == Path("outputs").absolute():
                    folder.parent.rmdir()  # unless there are other runs
        is_known = isinstance(error, UserError | Stopped)
        if folder.exists() and not (is_known and (folder / METRICS_FILE).exists()):
            message = str(error) if is_known else traceback.format_exc()
            with suppress(UserError):  # a full disk; it is printed all the same
                rank_zero_only(write_text)(path, message + "\n")
        raise
