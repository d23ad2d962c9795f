"""The config of one training, final: checked, without interpolations or open values, and with its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from sn6.callbacks.polygon_f1 import PolygonF1
from sn6.checkpoints.init_options import check_building_class, network_arguments, resolve_options
from sn6.checkpoints.initial_weights import InitialWeights, read_initial_weights
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.errors import UserError
from sn6.training.config_check import check_types
from sn6.training.devices import check_devices, fastest_precision


@dataclass(frozen=True, eq=False)
class ResolvedConfig:
    """What a training stage does, with all values resolved.

    Attributes:
        tree: the config, read-only, without interpolations
        weights: what the network starts from, None for its own initialisation
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
    check_selection(trainer, values["callbacks"])
    weights = weights_of(values)
    if weights is not None and "pretrained" in model:
        model["pretrained"] = None  # all layers are given, or keep their initialisation
    network = get_class(model["_target_"])
    requested = {key: value for key, value in network_arguments(model).items() if key != "_target_"}
    from_checkpoint, where = (weights.network, weights.where) if weights else ({}, "")
    model |= resolve_options(network, requested, from_checkpoint, model["reset_head"], where)
    check_building_class(model["classes"], model["building_class"])
    tree = OmegaConf.create(values | {"trainer": trainer, "model": model})
    OmegaConf.set_readonly(tree, True)
    return ResolvedConfig(tree, weights)


def weights_of(values: dict[str, Any]) -> InitialWeights | None:
    """Read the weights of `model.weights`; None where it is null.

    Raises:
        UserError: they cannot be read, or there are none to score without training
    """
    path = values["model"]["weights"]
    handoff = values["callbacks"].get("sar_handoff") or {}
    if values["trainer"]["max_epochs"] == 0 and (path is None or handoff.get("weights")):
        raise UserError(
            "trainer.max_epochs=0 scores weights without training; set only model.weights=PATH",
            kind="missing_value" if path is None else "conflict",
            key="model.weights" if path is None else "callbacks.sar_handoff.weights",
        )
    return None if path is None else read_initial_weights(path, "model.weights", FINAL_WEIGHTS)


def check_selection(trainer: dict[str, Any], callbacks: dict[str, Any]) -> None:
    """Raise a UserError if nothing that is logged chooses the epoch."""
    monitor = callbacks["checkpoint"]["monitor"]
    choices = tuple(f"val/{key}" for key in PolygonF1.logged)
    if monitor not in choices:
        raise UserError(
            f"unknown callbacks.checkpoint.monitor={monitor}; choose from {', '.join(choices)}",
            kind="unknown_value",
            key="callbacks.checkpoint.monitor",
            value=monitor,
        )
    if trainer["limit_val_batches"] == 0:
        raise UserError(
            "trainer.limit_val_batches=0 leaves no validation tiles to select the epoch; set 1 or more, or null",
            kind="invalid_value",
            key="trainer.limit_val_batches",
            value=0,
        )
