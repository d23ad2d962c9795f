"""A network's weights as a small file that others can use: safetensors, with what a reader needs to know."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sn6.errors import UserError
from sn6.files import atomic_write

SUFFIX = ".safetensors"
METADATA_KEY = "sn6"  # the entry of the file's metadata that holds all of ours, as JSON


def write_weights(path: Path, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Writes tensors and their card; no optimizer state, nothing pickled.

    Args:
        path: ends in .safetensors
        weights: of the network, by name
        card: plain values: network and options, bands, normalisation, ground, score, epoch, versions
    """
    with atomic_write(path) as part:
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, part, {METADATA_KEY: json.dumps(card)}
        )


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the card of a file; an empty card where another program wrote it.

    Raises:
        UserError: the file is broken or cut short
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, json.loads(
                (file.metadata() or {}).get(METADATA_KEY, "{}")
            )
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read, it is broken or cut short ({error}); make it again") from None
