"""Read and write a network's weights as a small file: safetensors, with the metadata that a reader needs.

safetensors has no checksums: a flipped bit in a tensor would change the network without a word. Our files hold a digest
of their tensors and metadata, which is checked at reading; those of other programs cannot be checked.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sn6.errors import UserError, first_line
from sn6.files import atomic_write

SUFFIX = ".safetensors"
METADATA_KEY = "sn6"  # entry of the file's metadata that contains all of ours, as JSON
DIGEST_KEY = "sn6_sha256"  # entry with the digest of the tensors and of METADATA_KEY; older files have none


def write_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and their metadata: no optimizer state, nothing pickled.

    Args:
        path: a file name that ends in .safetensors
        weights: tensors of the network, by name
        metadata: plain values: network and options, bands, normalisation, training area, score, epoch, versions

    Raises:
        UserError: the folder or the file cannot be written, or the disk is full
    """
    tensors, text = {name: tensor.contiguous() for name, tensor in weights.items()}, json.dumps(metadata)
    try:
        with atomic_write(path) as part:
            part.touch()
            mode = part.stat().st_mode  # that of any new file: safetensors lets nobody but the owner read its files
            save_file(tensors, part, {METADATA_KEY: text, DIGEST_KEY: digest(tensors, text)})
            part.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write {path} ({first_line(error)}); free some space or choose another folder",
            kind="unwritable",
            key=path,
        ) from None


def read_weights(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read the tensors and the metadata of a file, as they are; {} where another program wrote the file.

    Raises:
        UserError: the file is broken or truncated
    """
    try:
        with safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        text = entries.get(METADATA_KEY, "{}")
        if entries.get(DIGEST_KEY) not in (None, digest(weights, text)):
            raise ValueError("its contents are not those that were written")
        metadata = json.loads(text)
        if not isinstance(metadata, dict):
            raise ValueError(f"its metadata is a {type(metadata).__name__}")
        return weights, metadata
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is broken or truncated ({first_line(error)}); write or download it again",
            kind="unreadable",
            key=path,
        ) from None


def digest(weights: Mapping[str, Tensor], metadata: str) -> str:
    """Return the SHA-256 of names, types, shapes and values of tensors, and of the text of their metadata."""
    result = sha256(metadata.encode())
    for name, tensor in sorted(weights.items()):
        result.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        result.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
