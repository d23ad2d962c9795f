"""Load labels from a CSV in the challenge's format, or from the arrays cached in `<root>/.sn6/labels-<split>.npz`.

Parsing the text of 214,682 polygons takes seconds at every start, loading the arrays milliseconds.
"""

from dataclasses import fields
from pathlib import Path

import numpy as np

from sn6.datasets.cache import cache_path, fingerprint, lock, save
from sn6.datasets.declaration import Split
from sn6.datasets.packed_labels import PackedLabels, pack
from sn6.formats.challenge_csv import read_labels

FORMAT = 1  # increase it whenever the same CSV gives other labels


def load_labels(root: Path, split: Split, path: Path) -> PackedLabels:
    """Return the labels of the tiles that a CSV lists; of no tile where there is no CSV.

    The cache is used as long as the CSV has the size and time that it had when it was read. If several processes call
    this at the same time, one reads the CSV and the others wait.

    Args:
        root: folder whose cache is used
        split: of the tiles
        path: the CSV

    Raises:
        UserError: the CSV is malformed
    """
    if not path.exists():
        return pack({})
    cache, made_from = cache_path(root, f"labels-{split}.npz"), (FORMAT, *fingerprint(path))
    if (labels := read_cached(cache, made_from)) is not None:
        return labels
    with lock(cache) as may_write:
        if (labels := read_cached(cache, made_from)) is not None:  # another process has written it meanwhile
            return labels
        labels = pack(read_labels(path))
        if may_write:
            arrays = {field.name: getattr(labels, field.name) for field in fields(labels)}
            save(cache, lambda part: np.savez(part, made_from=np.array(made_from), **arrays))
    return labels


def read_cached(cache: Path, made_from: tuple[int, ...]) -> PackedLabels | None:
    """Read the cached labels; None where the file cannot be read or was made from another CSV.

    Args:
        cache: the file
        made_from: FORMAT, and size and time of the CSV
    """
    try:
        with cache.open("rb") as opened, np.load(opened) as file:
            if tuple(file["made_from"].tolist()) != made_from:
                return None
            return PackedLabels(**{field.name: file[field.name] for field in fields(PackedLabels)})
    except Exception:  # zipfile and NumPy raise errors of many types on a broken file
        return None
