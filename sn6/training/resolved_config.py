"""The config of one training, final: checked, without interpolations or open values, and with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sn6.callbacks.polygon_f1 import LOGGED_OF_CLASS, PolygonF1
from sn6.checkpoints.architecture import PRETRAINED_ARGUMENTS
from sn6.checkpoints.heads import build_heads, check_same_heads, target_nodes
from sn6.checkpoints.init_options import INIT_KEYS, check_classes, network_arguments, resolve_options
from sn6.checkpoints.initial_weights import HANDOFF_KEY, MODEL_KEY, InitialWeights, read_initial_weights
from sn6.checkpoints.run_files import EO_WEIGHTS, FINAL_WEIGHTS
from sn6.config.targets import import_target
from sn6.errors import UserError
from sn6.training.config_check import check_types
from sn6.training.devices import check_devices, fastest_precision
from sn6.training.resume import has_checkpoint
from sn6.training.run_paths import path_inside
from sn6.training.saved_config import saved_config


@dataclass(frozen=True, eq=False)
class ResolvedConfig:
    """What a training stage does, with all values resolved.

    Attributes:
        tree: the config, read-only, without interpolations
        weights: those of `model.weights`, None without
    """

    tree: DictConfig
    weights: InitialWeights | None

    @property
    def folder(self) -> Path:
        """Return the folder of the training."""
        return Path(self.tree.folder)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as new dicts, lists and values."""
        values = OmegaConf.to_container(self.tree)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}


def resolve(values: dict[str, Any]) -> ResolvedConfig:
    """Check a config, read the weights that it names, and fill in what it leaves open (null).

    Open are `trainer.precision`, which the device decides, and the network's options (classes, width, encoder, ...),
    which the weights decide or else the network's defaults.

    Args:
        values: the config as conf/ composes it, without interpolations

    Raises:
        UserError: a value is invalid, the machine lacks the devices, or the weights cannot be read or do not fit
    """
    check_types(values)
    trainer, model = dict(values["trainer"]), dict(values["model"])
    if trainer["precision"] is None:
        trainer["precision"] = fastest_precision(trainer["accelerator"])
    check_devices(trainer, values["optimizer"])
    check_length(trainer)
    check_selection(values)
    check_windows(values)
    check_best_folder(values)
    weights, trained = initial_weights(values)
    if trained:
        model |= {key: None for key in PRETRAINED_ARGUMENTS if key in model and key not in INIT_KEYS}
    where = weights.where if weights is not None else str(values["folder"])
    requested = {key: value for key, value in network_arguments(model).items() if key != "_target_"}
    heads = target_nodes(values["heads"])
    resets_head = resets(values, weights)
    if weights is not None and not resets_head:
        check_same_heads(weights.heads, heads, weights.where, weights.key.rpartition(".")[0])
    model |= resolve_options(import_target(model["_target_"], "model"), requested, trained, resets_head, where)
    check_classes(model["classes"], model["building_class"], build_heads(heads).channels)
    tree = OmegaConf.create(values | {"trainer": trainer, "model": model})
    OmegaConf.set_readonly(tree, True)
    return ResolvedConfig(tree, weights if weights is not None and weights.key == MODEL_KEY else None)


def resets(values: dict[str, Any], weights: InitialWeights | None) -> bool:
    """Return whether the last layers are initialised, whatever given weights have: the key is beside that of theirs."""
    if weights is not None and weights.key == HANDOFF_KEY:
        return bool(values["callbacks"]["sar_handoff"].get("reset_head"))
    return bool(values["model"]["reset_head"])


def initial_weights(values: dict[str, Any]) -> tuple[InitialWeights | None, dict[str, Any]]:
    """Read the weights that a run starts from, by `model.weights` or by `callbacks.sar_handoff.weights`.

    Returns:
        The weights, None where there are none or where a stopped run does not need them any more; and the options of
        the network that they are of, empty where there are none or the file does not say.

    Raises:
        UserError: they cannot be read, both keys are set, or there are none to score without training
    """
    path = values["model"]["weights"]
    by_callback = (values["callbacks"].get("sar_handoff") or {}).get("weights")
    if values["trainer"]["max_epochs"] == 0 and (path is None or by_callback):
        raise UserError(
            "trainer.max_epochs=0 scores weights without training; set only model.weights=PATH",
            kind="missing_value" if path is None else "conflict",
            key=MODEL_KEY if path is None else HANDOFF_KEY,
        )
    if path is not None and by_callback is not None:
        raise UserError(
            f"{MODEL_KEY} and {HANDOFF_KEY} both start the network from weights; set one of them",
            kind="conflict",
            key=HANDOFF_KEY,
            value=by_callback,
        )
    if path is not None:
        weights = read_initial_weights(path, MODEL_KEY, FINAL_WEIGHTS)
    elif by_callback is None:
        return None, {}
    elif values["resume"] and has_checkpoint(Path(values["folder"])):
        return None, saved_config(Path(values["folder"])).get("model", {})  # the file may be gone by now
    else:
        weights = read_initial_weights(by_callback, HANDOFF_KEY, EO_WEIGHTS)
    return weights, weights.network


def check_selection(values: dict[str, Any]) -> None:
    """Raise a UserError if no score, or the worst one, chooses the epoch or the learning rate, or no tile is scored."""
    trainer, classes = values["trainer"], build_heads(target_nodes(values["heads"])).class_names
    of_classes = (f"{key}_{name}" for name in classes for key in LOGGED_OF_CLASS)
    choices = tuple(f"val/{key}" for key in (*PolygonF1.logged, *of_classes))
    nodes = {f"callbacks.{name}": values["callbacks"].get(name) or {} for name in ("checkpoint", "early_stopping")}
    for where, node in (nodes | {"schedule": values["schedule"]}).items():
        monitor = node.get("monitor")
        if monitor not in choices and (where == "callbacks.checkpoint" or monitor is not None):
            raise UserError(
                f"unknown {where}.monitor={monitor}; choose from {', '.join(choices)}",
                kind="unknown_value",
                key=f"{where}.monitor",
                value=monitor,
            )
        best = "min" if monitor in [f"val/{key}" for key in PolygonF1.minimized] else "max"
        if monitor is not None and node.get("mode") not in (None, best):
            raise UserError(
                f"{where}.mode={node['mode']} takes the worst {monitor} for the best; set {where}.mode={best}",
                kind="conflict",
                key=f"{where}.mode",
                value=node["mode"],
            )
    for use, purpose in (("val", "validation tiles to select the epoch"), ("test", "tiles to score")):
        if trainer.get(key := f"limit_{use}_batches") == 0:
            raise UserError(
                f"trainer.{key}=0 leaves no {purpose}; set 1 or more, or null",
                kind="invalid_value",
                key=f"trainer.{key}",
                value=0,
            )
    if trainer.get("limit_predict_batches") is not None:
        raise UserError(
            f"trainer.limit_predict_batches={trainer['limit_predict_batches']} has no effect: the calibration takes "
            "the tiles of trainer.limit_val_batches; leave it out",
            kind="conflict",
            key="trainer.limit_predict_batches",
            value=trainer["limit_predict_batches"],
        )


def check_length(trainer: Mapping[str, Any]) -> None:
    """Raise a UserError if a training has no end."""
    if trainer["max_epochs"] in (None, -1) and trainer.get("max_steps", -1) == -1:
        raise UserError(
            f"trainer.max_epochs={trainer['max_epochs']} is no limit, and trainer.max_steps=-1 is none either; set one "
            "of them",
            kind="conflict",
            key="trainer.max_steps",
            value=-1,
        )


def check_windows(values: dict[str, Any]) -> None:
    """Raise a UserError if the windows of a validation overlap by no less than themselves."""
    window, overlap = values["window"], values["window_overlap"]
    if window is not None and overlap >= window:
        raise UserError(
            f"invalid window_overlap={overlap}: must be less than window={window}",
            kind="invalid_value",
            key="window_overlap",
            value=overlap,
        )


def check_best_folder(values: dict[str, Any]) -> None:
    """Raise a UserError if the best checkpoint would be outside the run's folder."""
    path = values["callbacks"]["checkpoint"].get("dirpath")
    if path is not None and path_inside(path, values["folder"]) is None:
        raise UserError(
            f"callbacks.checkpoint.dirpath={path} is outside the run's folder {values['folder']}; leave it out",
            kind="conflict",
            key="callbacks.checkpoint.dirpath",
            value=path,
        )
