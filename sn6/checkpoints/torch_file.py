"""Read what torch.save wrote, after a check of its checksums."""

import zipfile
from pathlib import Path
from typing import Any

import torch

DIRECTORY = 0x10  # bit of an entry's attributes


def read_torch_file(path: Path) -> Any:
    """Load the tensors and plain values of a file, without running code from it.

    torch does not look at the checksums (CRC-32) of the zip file that a checkpoint is, and a flipped bit in a tensor
    would change the network without a word. They are checked first, which takes a third of the time of loading. Files
    of torch before 1.6 have none, nor have those written under `torch.serialization.set_crc32_options(False)`.

    Raises:
        Exception: the file is broken or contains other things than tensors; zipfile, pickle and torch raise their own
    """
    if zipfile.is_zipfile(path):
        check_sums(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def check_sums(path: Path) -> None:
    """Raise a BadZipFile where an entry of a zip file has another CRC-32 than when it was written."""
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        # torch reads nothing for an entry that is marked as a folder, and leaves its tensor uninitialised
        broken = next((entry.filename for entry in entries if entry.external_attr & DIRECTORY), None)
        if broken is None and any(entry.CRC for entry in entries):
            broken = file.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"{broken} is not as it was written")
