"""A run: its stages one after another, or the one training that it is, and why it ended."""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from sn6.config import one_line_config_errors
from sn6.errors import UserError
from sn6.files import exclusive_lock, write_text
from sn6.processes import keep_freed_memory
from sn6.sweeps.job import ERROR_FILE, IN_A_SWEEP_ALONE
from sn6.training.external_launcher import require_run_name
from sn6.training.loggers import is_rank_zero
from sn6.training.resume import TRAINING_FILE, move_aside
from sn6.training.stage import train
from sn6.training.stages import stage_configs

log = logging.getLogger(__name__)


def explained_run(config: DictConfig, words: list[str]) -> dict[str, Any]:
    """`run`, which leaves in its folder why it ended."""
    keep_freed_memory()
    folder = Path(config.folder)
    alone = exclusive_lock(folder / TRAINING_FILE, f"trains in {folder}") if is_rank_zero() else nullcontext()
    with why_it_ended(folder), one_line_config_errors(words), alone:
        return run(config, words)


def run(config: DictConfig, words: list[str]) -> dict[str, Any]:
    """Trains the stages of `config` one after another, or the one training that it is.

    Args:
        config: as conf/ composes it
        words: of the command line, which go over what a stage says

    Returns:
        The metrics of the last stage, with those of the others under their names.
    """
    folder = Path(config.folder)
    require_run_name(config)
    for group in IN_A_SWEEP_ALONE:
        if any(word.startswith(f"{group}=") for word in words):
            raise UserError(f"{group}=... is for a sweep; add -m to the command")
    if not config.resume:
        rank_zero_only(move_aside)(folder)
    if not config.stages:
        return train(config)
    stages = stage_configs(config, words)
    metrics = {name: train(stage) for name, stage in stages.items()}
    last = list(stages)[-1]
    joined = metrics.pop(last) | metrics
    rank_zero_only(write_text)(folder / "metrics.json", json.dumps(joined, indent=2) + "\n")
    log.info("the run of %s: %s", " and ".join(stages), folder / "metrics.json")
    return joined


@contextmanager
def why_it_ended(folder: Path) -> Iterator[None]:
    """Leaves `error.txt` in the run's folder when it fails, and no folder of a run that was refused at once."""
    path = folder / ERROR_FILE
    with suppress(OSError):
        rank_zero_only(path.unlink)()
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # another rank was first
            if [path.name for path in folder.iterdir()] == [TRAINING_FILE]:
                (folder / TRAINING_FILE).unlink()
                folder.rmdir()
        if folder.exists():
            told = str(error) if isinstance(error, UserError) else traceback.format_exc()
            with suppress(UserError):  # a full disk; it is told on screen all the same
                rank_zero_only(write_text)(path, told + "\n")
        raise
