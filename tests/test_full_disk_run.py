"""A full disk at any byte leaves the old file of a run or none, never one that is cut short."""

import errno
import json
import os
import resource
import stat
from contextlib import contextmanager

import pytest
import torch
import yaml
from matplotlib.figure import Figure

from sn6.callbacks.resume_point import AtomicCheckpointIO
from sn6.checkpoints.weights_file import write_weights
from sn6.errors import DISK_FULL, UserError
from sn6.files import write_csv, write_text
from sn6.plots.tiles import save_figure
from sn6.training.loggers import csv_logger

WEIGHTS = {f"layer{number}.weight": torch.full((7, number + 1), float(number)) for number in range(5)}
CONFIG = {f"key{number}": [number, f"text {number}"] for number in range(50)}


def write_png(path):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 3, 2])
    save_figure(figure, path)


WRITERS = {
    "metrics.json": lambda path: write_text(path, json.dumps(CONFIG, indent=2) + "\n"),
    "config.yaml": lambda path: write_text(path, yaml.safe_dump(CONFIG)),
    "tiles.csv": lambda path: write_csv(path, ["a", "b"], [[key, values[0]] for key, values in CONFIG.items()]),
    "best.ckpt": lambda path: AtomicCheckpointIO().save_checkpoint({"state_dict": WEIGHTS, "epoch": 3}, path),
    "weights.safetensors": lambda path: write_weights(path, WEIGHTS, CONFIG),
    "curves.png": write_png,
}


@contextmanager
def disk_with(size):
    """Let no file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def error_of(write, path):
    """Return the error that ends the writing of a file, which has to be one that is reported in one line."""
    try:
        write(path)
    except UserError as error:
        return error.kind
    except OSError as error:
        return "unwritable" if error.errno in DISK_FULL else repr(error)
    return None


@pytest.mark.parametrize("name", WRITERS)
def test_sizes_around_the_end_of_a_file(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name
    write(path)
    size = path.stat().st_size
    path.unlink()
    for limit in sorted({0, 1, 511, 512, 513, size // 2, *range(max(0, size - 130), size)}):
        if limit >= size:
            continue
        with disk_with(limit):
            assert error_of(write, path) == "unwritable", limit
        assert list(tmp_path.iterdir()) == [], limit
        path.write_bytes(b"old")
        with disk_with(limit):
            assert error_of(write, path) == "unwritable", limit
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path], limit
        path.unlink()
    with disk_with(size):
        assert error_of(write, path) is None
    assert path.stat().st_size == size


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_that_is_full_only_when_the_file_is_synchronized(tmp_path, monkeypatch, name, number):
    """File systems that allocate late, such as NFS, report it then."""
    path = tmp_path / name
    path.write_bytes(b"old")

    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    assert error_of(WRITERS[name], path) == "unwritable"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_contents_are_on_the_disk_before_the_name_and_the_folder_after_it(tmp_path, monkeypatch, name):
    path, calls = tmp_path / name, []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def record_replace(source, target):
        calls.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    WRITERS[name](path)
    assert calls == [path.stat().st_size, "name", "folder"]


def test_new_column_on_a_full_disk_keeps_the_rows_of_metrics_csv(tmp_path):
    logger = csv_logger(tmp_path, 0)
    for step in range(20):
        logger.log_metrics({"loss": 1 / 3}, step=step)
    before = (tmp_path / "metrics.csv").read_bytes()
    assert before.count(b"\n") == 21
    with disk_with(len(before) // 2), pytest.raises((UserError, OSError)):
        logger.log_metrics({"f1": 0.5}, step=20)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    logger = csv_logger(tmp_path, 20)  # resumed
    logger.log_metrics({"f1": 0.5}, step=20)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0].split(",") == ["f1", "loss", "step"]
    assert len(lines) == 22
