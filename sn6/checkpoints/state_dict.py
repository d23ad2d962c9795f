"""Extract a network's tensors from a checkpoint, and describe how they differ from those of another network."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

PREFIX = "network."  # of the network's tensors in a checkpoint of Lightning
MAX_NAMES = 3  # tensors of each kind that a message lists


def network_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the network's tensors in a checkpoint of a run; an empty dict for a checkpoint of another program."""
    return {k.removeprefix(PREFIX): v for k, v in checkpoint["state_dict"].items() if k.startswith(PREFIX)}


def describe_mismatch(
    network: nn.Module, weights: Mapping[str, Tensor], display_name: Callable[[str], str] = str
) -> str:
    """List the tensors that are missing in `weights`, unknown to `network` or of another shape; "" if all fit.

    Args:
        network: the network to load the weights into
        weights: tensors by the network's names
        display_name: maps a tensor's name to the one to show
    """
    expected = network.state_dict()
    kinds = {
        "missing": [display_name(name) for name in expected if name not in weights],
        "unknown": [display_name(name) for name in weights if name not in expected],
        "of another shape": [
            f"{display_name(name)} {tuple(weights[name].shape)}, not {tuple(expected[name].shape)}"
            for name in expected
            if name in weights and weights[name].shape != expected[name].shape
        ],
    }
    return "; ".join(f"{kind}: {abbreviate(names)}" for kind, names in kinds.items() if names)


def abbreviate(names: list[str]) -> str:
    """Return the first few names and the number of the others."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
