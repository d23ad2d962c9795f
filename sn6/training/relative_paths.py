"""The paths in a run's checkpoints, relative to its folder, so that it resumes wherever the folder is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sn6.errors import UserError
from sn6.training.resume import is_of_run, read_best
from sn6.training.run_paths import HERE, path_inside

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # in the state of a ModelCheckpoint


class RelativePaths(Callback):
    """Write the paths of the best checkpoints relative to the run's folder, and make them absolute at resuming.

    Lightning's ModelCheckpoint forgets the best score when its folder has another path than in the checkpoint, and then
    overwrites the best checkpoint with a worse one. What it wrote is always in its folder, so that the path from there
    is enough to find it again, also in the checkpoints of older versions, whose paths are absolute.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Replace the absolute paths."""
        for callback, state in states(trainer, checkpoint):
            inside = path_inside(str(callback.dirpath), trainer.default_root_dir)
            checkpoint["callbacks"][callback.state_key] = moved(state, inside or HERE, callback.state_key)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Replace the relative paths, and read the best checkpoint, which the run needs at its end.

        Raises:
            UserError: the checkpoint is of another run, a path leads out of the callback's folder, or the best
                checkpoint is missing or broken
        """
        config = pl_module.hparams["config"]
        if not is_of_run(checkpoint, config):
            raise UserError(
                f"{trainer.ckpt_path} is the checkpoint of another run; restore it from a copy, or start over with "
                "resume=false",
                kind="conflict",
                key=trainer.ckpt_path,
            )
        for callback, state in states(trainer, checkpoint):
            state = moved(state, str(callback.dirpath), callback.state_key)
            checkpoint["callbacks"][callback.state_key] = state
            if callback is trainer.checkpoint_callback and state["best_model_path"]:
                read_best(Path(state["best_model_path"]), config)


def states(trainer: Trainer, checkpoint: Mapping[str, Any]) -> list[tuple[ModelCheckpoint, dict[str, Any]]]:
    """Return the callbacks that choose checkpoints, each with its state, where the checkpoint has one."""
    found = [(one, checkpoint["callbacks"].get(one.state_key)) for one in trainer.checkpoint_callbacks]
    return [(one, state) for one, state in found if isinstance(one, ModelCheckpoint) and state]


def moved(state: Mapping[str, Any], folder: str, name: str) -> dict[str, Any]:
    """Return the state of a ModelCheckpoint with the paths that it would have if its folder was `folder`.

    Args:
        state: of the callback
        folder: new value of `dirpath`
        name: of the callback, for messages

    Raises:
        UserError: a path is outside the folder that the state names
    """
    before = str(state.get("dirpath") or HERE)

    def path_in_new_folder(path: str) -> str:
        if not path:
            return path
        inside = os.path.relpath(path, before) if os.path.isabs(path) == os.path.isabs(before) else os.pardir
        if inside.split(os.sep)[0] == os.pardir:
            raise UserError(
                f"{name}: the best checkpoint {path} is outside the run's folder; copy it back, or start over with "
                "resume=false",
                kind="conflict",
                key="checkpoint",
                value=path,
            )
        return os.path.join(folder, inside)

    result = {key: path_in_new_folder(state[key]) for key in PATHS if key in state}
    best = {path_in_new_folder(path): score for path, score in state.get("best_k_models", {}).items()}
    return {**state, **result, "dirpath": folder, "best_k_models": best}
