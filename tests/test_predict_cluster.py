"""Predict in the jobs of a SLURM cluster, which is a mock: `python -m sn6.predict ... cluster=slurm jobs=N`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bright import MEAN, STD
from helpers.commands import TESTS, assert_fails, assert_one_line
from helpers.fake_slurm import directives, install
from helpers.handmade import NORTH, WEST, write_tif
from helpers.mortal import ACTIONS
from helpers.networks import METADATA, texture

from sn6.checkpoints.weights_file import write_weights

pytest.importorskip("submitit")

ALLOW = "helpers.mortal.Mortal"
FILES = ("footprints.gpkg", "footprints.geojson", "footprints.parquet", "footprints.fgb")
SMALL = ("window=96", "overlap=32", "device=cpu", "check_values=false", "formats=[gpkg,geojson,parquet,fgb]")
JOB = ("cluster=slurm", "cpus_per_task=1", "mem_gb=4")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from helpers.mortal import Mortal

    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    metadata = {"network": {"_target_": ALLOW}, "mean": [MEAN] * 4, "std": [STD] * 4}
    write_weights(path, Mortal().state_dict(), METADATA | metadata)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images apart from one another, of which one is larger."""
    folder, pixels = tmp_path_factory.mktemp("images"), texture(12, 24)
    for number, size in enumerate((160, 160, 288, 160, 160)):
        write_tif(folder / f"{number}.tif", pixels[:, :size, :size] + number, WEST + 1000 * number, NORTH)
    return folder


@pytest.fixture(scope="module")
def strip(tmp_path_factory):
    """Three images that overlap, one of them moved by half a pixel, and one by itself."""
    folder, ground = tmp_path_factory.mktemp("strip"), texture(16, 24)[:, :192]
    for name, column in (("a", 0), ("b", 96), ("c", 192)):
        place = WEST + 0.5 * column + (0.25 if name == "b" else 0), NORTH
        write_tif(folder / f"{name}.tif", ground[:, :, column : column + 192].copy(), *place)
    write_tif(folder / "d.tif", ground[:, :, :160].copy(), WEST + 5000, NORTH)
    return folder


@pytest.fixture
def predict(weights, tmp_path) -> Callable[..., subprocess.Popen]:
    """Start `python -m sn6.predict` in a process of its own, with the mock of SLURM's commands."""
    slurm = install(tmp_path)

    def start(*overrides: object, actions: dict[str, tuple[str, int]] | None = None) -> subprocess.Popen:
        command = [sys.executable, "-m", "sn6.predict", f"checkpoint={weights}", f"allow={ALLOW}", *SMALL]
        path = {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, *map(str, overrides)],
            cwd=tmp_path,
            env=os.environ | path | slurm | {ACTIONS: json.dumps(actions or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Return the exit status and stderr of a process."""
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    end_time = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end_time
        time.sleep(0.1)


def predict_here(sn6_command, weights, out: Path, *overrides: object) -> None:
    """Predict in this process alone."""
    done = sn6_command("predict", f"checkpoint={weights}", f"allow={ALLOW}", f"out={out}", *SMALL, *overrides)
    assert done.status == 0, done.err


def assert_same_bytes(one: Path, other: Path, names: tuple[str, ...]) -> None:
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_two_of_three_jobs_killed_the_same_command_finishes(sn6_command, predict, weights, images, tmp_path):
    predict_here(sn6_command, weights, tmp_path / "one", f"images={images}", "probability=true")
    overrides = (f"images={images}", "out=jobs", "probability=true", *JOB, "jobs=3")
    actions = {"0": ("SIGKILL", 4), "2": ("SIGKILL", 1)}
    status, err = end(predict(*overrides, actions=actions))
    assert_one_line(status, err, "7_0", "jobs/unfinished/jobs/7_0_0_log.err")
    unfinished = tmp_path / "jobs/unfinished"
    assert (unfinished / "jobs/7_0_0_log.err").exists()
    before = {path: path.stat().st_mtime_ns for path in unfinished.rglob("*.npy")}
    finished = {path.name for path in unfinished.glob("*.parquet")}
    assert before
    assert 0 < len(finished) < 5
    assert not (tmp_path / "jobs/footprints.gpkg").exists()
    requested = directives(tmp_path / "script.sh")
    assert requested["array"].strip("'") == "0-2%3"
    assert (requested["cpus-per-task"], requested["mem"], requested["time"]) == ("1", "4GB", "1440")
    assert "gpus-per-node" not in requested
    status, err = end(predict(*overrides))
    assert status == 0, err
    assert_same_bytes(tmp_path / "one", tmp_path / "jobs", FILES)
    for path in (tmp_path / "one/probability").iterdir():
        assert path.read_bytes() == (tmp_path / "jobs/probability" / path.name).read_bytes()
    again = directives(tmp_path / "script.sh")  # as many jobs as there are images with work left, at most three
    assert again["array"].strip("'").startswith(f"0-{min(3, 5 - len(finished)) - 1}%")
