"""The labels of an archive's CSV, kept beside it as arrays: the text of 214,682 outlines takes seconds to read."""

from dataclasses import fields
from pathlib import Path

import numpy as np

from sn6.datasets.cache import cache_path, fingerprint, lock, save
from sn6.datasets.layout import Split, labels_path, test_truth_path
from sn6.datasets.packed_labels import PackedLabels, pack
from sn6.formats.challenge_csv import read_labels

FORMAT = 1  # to be raised whenever the same CSV gives other labels


def archive_labels(root: Path, split: Split) -> PackedLabels:
    """The labels of the tiles that the CSV of `split` names; of none where there is no CSV.

    They lie in `<root>/.sn6/labels-<split>.npz` as long as the CSV has the size and time that it had then. Several
    processes may ask at once: one reads the CSV while the others wait.

    Raises:
        UserError: the CSV is malformed
    """
    path = labels_path(root) if split == "train" else test_truth_path(root)
    if not path.exists():
        return pack({})
    kept, made_from = cache_path(root, f"labels-{split}.npz"), (FORMAT, *fingerprint(path))
    if (labels := read_cached(kept, made_from)) is not None:
        return labels
    with lock(kept) as may_write:
        if (labels := read_cached(kept, made_from)) is not None:  # another process was first
            return labels
        labels = pack(read_labels(path))
        if may_write:
            arrays = {field.name: getattr(labels, field.name) for field in fields(labels)}
            save(kept, lambda part: np.savez(part, made_from=np.array(made_from), **arrays))
    return labels


def read_cached(kept: Path, made_from: tuple[int, ...]) -> PackedLabels | None:
    """The labels, where the file can be read and was made from these."""
    try:
        with kept.open("rb") as opened, np.load(opened) as file:
            if tuple(file["made_from"].tolist()) != made_from:
                return None
            return PackedLabels(**{field.name: file[field.name] for field in fields(PackedLabels)})
    except Exception:  # zip, NumPy and a file of anything else each raise their own
        return None
