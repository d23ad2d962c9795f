"""Read and write a network's weights as a small file: safetensors, with the metadata that a reader needs."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sn6.errors import UserError
from sn6.files import atomic_write

SUFFIX = ".safetensors"
METADATA_KEY = "sn6"  # entry of the file's metadata that contains all of ours, as JSON


def write_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and their metadata: no optimizer state, nothing pickled.

    Args:
        path: a file name that ends in .safetensors
        weights: tensors of the network, by name
        metadata: plain values: network and options, bands, normalisation, training area, score, epoch, versions
    """
    with atomic_write(path) as part:
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, part, {METADATA_KEY: json.dumps(metadata)}
        )


def read_weights(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read the tensors and the metadata of a file, as they are; {} where another program wrote the file.

    Raises:
        UserError: the file is broken or truncated
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            return {name: file.get_tensor(name) for name in names}, metadata
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is broken or truncated ({error}); write or download it again",
            kind="unreadable",
            key=path,
        ) from None
