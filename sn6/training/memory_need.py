"""Refuse a network or a batch that the memory of no such machine can hold, before anything is made."""

import os
from collections.abc import Mapping
from typing import Any

from sn6.checkpoints.loading import build_on_meta
from sn6.errors import UserError

SIZE_KEYS = ("width", "widths", "depth", "encoder_width")  # arguments of networks that decide the size of their weights
COPIES = 4  # of the weights in training: themselves, their gradients, and the two moments of Adam
BYTES = 4  # of a number


def check_memory(network: Mapping[str, Any], data: Mapping[str, Any], bands: int) -> None:
    """Raise a UserError where the weights of a network or the crops of a batch need more than all memory.

    A training needs much more than this lower bound; what is short of memory later is reported when it is.

    Args:
        network: `_target_` and arguments of its class
        data: the node `data` of the config
        bands: of a sample
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    batch, crop = data["batch_size"], data["crop"]
    size = batch * bands * crop**2 * BYTES
    if size > memory:
        raise UserError(
            f"data.batch_size={batch} crops of data.crop={crop} pixels need {size / 1e9:.3g} GB, but this machine has "
            f"{memory / 1e9:.3g} GB; set smaller ones",
            kind="invalid_value",
            key="data.batch_size",
            value=batch,
        )
    given = [key for key in SIZE_KEYS if network.get(key) is not None]
    if not given:
        return
    weights = sum(weight.numel() for weight in build_on_meta(dict(network)).parameters())
    if (size := COPIES * BYTES * weights) > memory:
        values = " ".join(f"model.{key}={network[key]}" for key in given)
        raise UserError(
            f"{values}: {weights:.3g} weights need {size / 1e9:.3g} GB in training, but this machine has "
            f"{memory / 1e9:.3g} GB; set smaller ones",
            kind="invalid_value",
            key=f"model.{given[0]}",
            value=network[given[0]],
        )
