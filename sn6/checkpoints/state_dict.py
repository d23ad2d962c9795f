"""The tensors of a network in a checkpoint, and in words how they differ from those of another."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

PREFIX = "network."  # of the network's tensors in a checkpoint of Lightning
NAMED = 3  # tensors of each kind that a message names


def network_state(held: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's tensors in what a checkpoint of a run holds; empty where it is of another program."""
    return {k.removeprefix(PREFIX): v for k, v in held["state_dict"].items() if k.startswith(PREFIX)}


def mismatch(network: nn.Module, weights: Mapping[str, Tensor], named: Callable[[str], str] = str) -> str:
    """In words, the tensors that `weights` lacks, has too many, or has in another shape; empty where all fit.

    Args:
        network: what they are meant for
        weights: by the network's names
        named: what to call a tensor
    """
    wanted = network.state_dict()
    kinds = {
        "missing": [named(name) for name in wanted if name not in weights],
        "unknown": [named(name) for name in weights if name not in wanted],
        "of another shape": [
            f"{named(name)} {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in wanted
            if name in weights and weights[name].shape != wanted[name].shape
        ],
    }
    return "; ".join(f"{kind}: {first_of(names)}" for kind, names in kinds.items() if names)


def first_of(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
