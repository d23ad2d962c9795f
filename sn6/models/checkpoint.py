"""Weights of a whole network from a checkpoint: all of them or none, read without unpickling code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sn6.errors import UserError, first_line

PREFIX = "network."  # of the network's tensors in a checkpoint of Lightning
NAMED = 3  # tensors of each kind that a message names


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Copies the weights of a run's checkpoint, or of a plain state dict, into `network`.

    Raises:
        UserError: there is no such file, it is broken, or it is of another network
    """
    weights = network_weights(path)
    if differences := mismatch(network, weights):
        raise UserError(
            f"model.weights={path} is of another network than {type(network).__name__}: {differences}; "
            "set the model's options as they were, or take another file"
        )
    network.load_state_dict(weights)


def network_weights(path: Path) -> dict[str, Tensor]:
    """The network's tensors in a checkpoint of Lightning or in a plain state dict.

    Raises:
        UserError: there is no such file, or it holds no plain tensors
    """
    if not path.is_file():
        raise UserError(f"model.weights={path}: there is no such file; give a checkpoint such as checkpoints/best.ckpt")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own
        raise UserError(
            f"model.weights={path} cannot be read, it is broken or no checkpoint ({first_line(error)}); give another"
        ) from None
    if not isinstance(held, dict):
        raise UserError(
            f"model.weights={path} holds no weights by name; give a checkpoint such as checkpoints/best.ckpt"
        )
    return network_of(held) if "state_dict" in held else held


def network_of(held: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's tensors in what a checkpoint of Lightning holds."""
    return {k.removeprefix(PREFIX): v for k, v in held["state_dict"].items() if k.startswith(PREFIX)}


def mismatch(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """In words, the tensors that `weights` lacks, has too many, or has in another shape; empty where all fit."""
    wanted = network.state_dict()
    kinds = {
        "missing": [name for name in wanted if name not in weights],
        "unknown": [name for name in weights if name not in wanted],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in wanted
            if name in weights and weights[name].shape != wanted[name].shape
        ],
    }
    return "; ".join(f"{kind}: {first_of(names)}" for kind, names in kinds.items() if names)


def first_of(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
