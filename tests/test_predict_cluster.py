"""Predict in the jobs of a SLURM cluster, which is a mock: `python -m sn6.predict ... cluster=slurm jobs=N`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from helpers.bright import MEAN, STD
from helpers.commands import TESTS, Finished, assert_fails, assert_one_line
from helpers.fake_slurm import directives, install
from helpers.handmade import NORTH, WEST, write_tif
from helpers.mortal import ACTIONS
from helpers.networks import METADATA, texture

from sn6.checkpoints.weights_file import write_weights
from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.files import write_text
from sn6.footprints.threshold import Threshold
from sn6.prediction.computers import find_computer
from sn6.prediction.ensemble import Averaging
from sn6.prediction.fusion import Fusion
from sn6.prediction.images import Image
from sn6.prediction.networks import load_networks
from sn6.prediction.output_folder import claimed_folder, mark_finished
from sn6.prediction.plan import Plan
from sn6.prediction.shares import RECORD, deal
from sn6.prediction.slurm import SlurmOptions

pytest.importorskip("submitit")

ALLOW = "helpers.mortal.Mortal"
NO_FILE = PlacedImage("it.tif", Grid("EPSG:32631", 0.0, 0.0, 0.5, 40, 50), (1,), False, Units("db"), None)
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


def try_here(sn6_command, weights, out: Path, *overrides: object) -> Finished:
    """Call the command in this process."""
    return sn6_command("predict", f"checkpoint={weights}", f"allow={ALLOW}", f"out={out}", *SMALL, *overrides)


def predict_here(sn6_command, weights, out: Path, *overrides: object) -> None:
    """Predict in this process alone."""
    done = try_here(sn6_command, weights, out, *overrides)
    assert done.status == 0, done.err


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """The folder of the mock of SLURM's commands, which this process finds too."""
    for name, value in install(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


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


@pytest.mark.slow
def test_images_that_are_fused_and_registered_give_the_same_bytes(sn6_command, predict, weights, strip, tmp_path):
    fused = (f"images={strip}", "revisits=true", "register=true", "merge=true", "probability=true")
    predict_here(sn6_command, weights, tmp_path / "one", *fused)
    overrides = (*fused, "out=jobs", *JOB, "jobs=2")
    status, err = end(predict(*overrides, actions={"1": ("SIGKILL", 2)}))
    assert_one_line(status, err, "7_1")
    status, err = end(predict(*overrides))
    assert status == 0, err
    merged = tuple(name.replace("footprints", "merged") for name in FILES)
    assert_same_bytes(tmp_path / "one", tmp_path / "jobs", (*FILES, *merged, "shifts.csv", "looks.tif"))
    for path in (tmp_path / "one/probability").iterdir():
        assert path.read_bytes() == (tmp_path / "jobs/probability" / path.name).read_bytes()
    assert "array" not in directives(tmp_path / "script.sh")  # one job has fused the images


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_named_and_the_others_are_finished(predict, images, tmp_path):
    broken = Path(shutil.copytree(images, tmp_path / "images"))
    os.truncate(broken / "1.tif", (broken / "1.tif").stat().st_size // 2)
    status, err = end(
        predict(f"images={broken}", "out=jobs", *JOB, "jobs=2", "timeout_min=90", "sbatch=[--qos=high,exclusive]")
    )
    assert_one_line(status, err, "1.tif", "1 of 2 jobs")
    unfinished = tmp_path / "jobs/unfinished"
    finished = {path.name for path in unfinished.glob("*.parquet")}
    assert finished >= {"footprints2.parquet"}  # of the other job
    assert "footprints1.parquet" not in finished
    requested = directives(tmp_path / "script.sh")
    assert (requested["time"], requested["qos"], requested["exclusive"]) == ("90", "high", "")
    shutil.copy(images / "1.tif", broken / "1.tif")
    status, err = end(predict(f"images={broken}", "out=jobs", "batch=2"))  # without the cluster
    assert status == 0, err


@pytest.mark.slow
def test_ctrl_c_cancels_the_jobs_and_one_process_finishes(sn6_command, predict, weights, images, slurm):
    predict_here(sn6_command, weights, slurm / "one", f"images={images}")
    process = predict(f"images={images}", "out=jobs", *JOB, "jobs=2", actions={"1": ("halt", 1)})
    wait_until(lambda: list(slurm.glob("jobs/unfinished/footprints*.parquet")))
    process.send_signal(signal.SIGINT)
    status, err = end(process)
    assert status == 130, err
    assert "Traceback" not in err
    assert (slurm / "cancelled").read_text() == "7\n"
    assert (slurm / "states/7_1").read_text().startswith("CANCELLED")
    wait_until(lambda: not is_alive(slurm / "pids7_1"))
    predict_here(sn6_command, weights, slurm / "jobs", f"images={images}")
    assert_same_bytes(slurm / "one", slurm / "jobs", FILES)


@pytest.mark.slow
def test_jobs_of_a_killed_command_are_waited_for_and_have_no_second_writer(
    sn6_command, predict, weights, images, slurm
):
    overrides = (f"images={images}", "out=jobs", *JOB, "jobs=2")
    process = predict(*overrides, actions={"1": ("halt", 1)})
    wait_until(lambda: list(slurm.glob("jobs/unfinished/footprints*.parquet")))
    process.kill()
    process.communicate()
    refused = try_here(sn6_command, weights, slurm / "jobs", f"images={images}")
    assert_fails(refused, "conflict", "cluster")
    again = predict(*overrides)
    time.sleep(15)
    assert again.poll() is None
    (slurm / "go").touch()
    status, err = end(again)
    assert status == 0, err
    assert len(list(slurm.glob("script*_.sh"))) == 1  # submitted once
    predict_here(sn6_command, weights, slurm / "one", f"images={images}")
    assert_same_bytes(slurm / "one", slurm / "jobs", FILES)


@pytest.mark.slow
def test_a_job_at_its_time_limit_is_requeued_and_continues(predict, images, slurm):
    process = predict(f"images={images}", "out=jobs", *JOB, "processes=2", actions={"0": ("halt", 1)})
    wait_until(lambda: list(slurm.glob("jobs/unfinished/outputs*/*.npy")))
    predicted = {path: path.stat().st_mtime_ns for path in slurm.glob("jobs/unfinished/outputs*/*.npy")}
    for pid in session(int((slurm / "pids7").read_text())):
        os.kill(pid, signal.SIGUSR2)  # SLURM sends it to all processes of a job
    wait_until((slurm / "requeued").exists)
    assert all(path.stat().st_mtime_ns == written for path, written in predicted.items())
    (slurm / "go").touch()
    status, err = end(process)
    assert status == 0, err + "".join(path.read_text() for path in slurm.rglob("*_log.err"))
    assert (slurm / "requeued").read_text() == "requeue 7"


def session(leader: int) -> list[int]:
    """Return the processes of a session."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_in(pid, leader)]


def is_in(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader
    except ProcessLookupError:
        return False


def is_alive(pids: Path) -> bool:
    """Return whether any of the processes in a file is alive."""
    return any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (("jobs=2",), "conflict", "jobs"),
        (("partition=gpu",), "conflict", "partition"),
        (("sbatch=[qos=high]",), "conflict", "sbatch"),
        (("cluster=slurm", "partitoin=gpu"), "unknown_key", "partitoin"),
        (("cluster=pbs",), "invalid_value", "cluster"),
        (("cluster=slurm", "jobs=0"), "invalid_value", "jobs"),
        (("cluster=slurm", "timeout_min=0"), "invalid_value", "timeout_min"),
    ],
)
def test_wrong_options_are_one_line(sn6_command, weights, images, slurm, overrides, kind, key):
    done = try_here(sn6_command, weights, slurm / "jobs", f"images={images}", *overrides)
    assert_fails(done, kind, key)
    assert not (slurm / "jobs").exists()


def test_an_unknown_device_of_the_jobs_is_one_line(sn6_command, weights, images, slurm):
    overrides = (f"checkpoint={weights}", f"allow={ALLOW}", f"images={images}", f"out={slurm}/jobs", *JOB)
    assert_fails(sn6_command("predict", *overrides, "device=gpu"), "unknown_value", "device", "gpu")


def test_a_machine_without_slurm_or_submitit_is_one_line(sn6_command, weights, images, tmp_path, monkeypatch):
    overrides = (f"images={images}", "cluster=slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_fails(try_here(sn6_command, weights, tmp_path / "jobs", *overrides), "not_found", "cluster", "slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert_fails(try_here(sn6_command, weights, tmp_path / "jobs", *overrides), "unavailable", "cluster", "slurm")


def test_jobs_that_slurm_refuses_are_one_line_with_its_reason(sn6_command, weights, images, slurm):
    (slurm / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2; exit 1\n")
    overrides = (f"images={images}", *JOB, "partition=gpu")
    done = try_here(sn6_command, weights, slurm / "jobs", *overrides)
    assert_fails(done, "unavailable", "cluster")
    assert_one_line(done.status, done.err, "invalid partition specified: gpu")
    assert len(done.err.strip().splitlines()) == 1


def test_a_record_that_slurm_cannot_confirm_is_refused(sn6_command, weights, images, slurm):
    folder = slurm / "jobs/unfinished/jobs"
    (slurm / "bin/sbatch").write_text("#!/bin/sh\nexit 1\n")
    assert try_here(sn6_command, weights, slurm / "jobs", f"images={images}", *JOB).status == 1  # makes the folder
    write_text(folder / RECORD, json.dumps({"jobs": {"3_0": 4, "3_1": 4}}))
    (slurm / "bin/squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2; exit 1\n")
    for overrides in ((), JOB):
        done = try_here(sn6_command, weights, slurm / "jobs", f"images={images}", *overrides)
        assert_fails(done, "unavailable", "cluster")
    install(slurm)  # whose squeue has forgotten the jobs
    predict_here(sn6_command, weights, slurm / "jobs", f"images={images}")


def plan_of(folder: Path, sizes: list[int], fused: bool = False) -> Plan:
    """Return a plan of images of these edge lengths, which overlap their neighbours where they are fused."""
    images = tuple(
        Image(str(number), "it.tif", NO_FILE, (1,), size, size, (WEST + 20 * number, NORTH), 0.5, 0.5, "EPSG:32631")
        for number, size in enumerate(sizes)
    )
    averaging, fusion = Averaging(False, (1.0,), "32-true"), Fusion(16.0, True) if fused else None
    return Plan((), (), images, 96, 32, averaging, Threshold(), 1, folder, None, (), fusion)


def windows_of(size: int) -> int:
    """Count the windows of 96 pixels that overlap by 32 or more along both sides of an image."""
    return 1 if size <= 96 else (1 + -(-(size - 96) // 64)) ** 2


def test_images_are_dealt_out_by_their_windows(tmp_path):
    sizes = [96, 480, 160, 160, 288, 96, 224]
    parts = deal(plan_of(tmp_path, sizes), 3)
    dealt = [number for part in parts for number in part.images]
    assert sorted(dealt) == list(range(len(sizes)))
    assert [part.size for part in parts] == [sum(windows_of(sizes[number]) for number in part.images) for part in parts]
    assert max(part.size for part in parts) == windows_of(480)  # no job has more than the largest image
    assert len(deal(plan_of(tmp_path, sizes), 99)) == len(sizes)


def test_only_what_is_missing_is_dealt_out(tmp_path):
    plan = plan_of(tmp_path, [160, 160, 160])
    for number in (0, 1):
        for region in plan.mosaic(number).regions()[: 4 - number]:
            plan.mosaic(number).write(region, np.zeros((1, 96, 96), np.float32))
    assert [part.size for part in sorted(deal(plan, 9), key=lambda part: part.images)] == [0, 1, 4]
    plan.part(0).touch()
    assert sorted(part.images for part in deal(plan, 9)) == [(1,), (2,)]
    for number in (1, 2):
        plan.part(number).touch()
    assert deal(plan, 9) == []


def test_fused_images_are_dealt_out_until_all_are_predicted(tmp_path):
    plan = plan_of(tmp_path, [96, 96, 96], fused=True)
    for number in range(3):
        assert sorted(one for part in deal(plan, 2) for one in part.images) == list(range(number, 3))
        plan.mosaic(number).write((slice(0, 96), slice(0, 96)), np.zeros((1, 96, 96), np.float32))
    assert [part.images for part in deal(plan, 2)] == [None]
    assert deal(plan, 2)[0].size == len(plan.layout.blocks)


def test_jobs_predict_on_their_own_devices_in_the_precision_of_the_run(weights):
    network = replace(load_networks((weights,), (ALLOW,))[0], precision="bf16-mixed")
    options = SlurmOptions(partition="gpu", sbatch=["qos=high", "--exclusive"])
    computer = find_computer(4, options, "auto", 2, 3)  # whatever this machine has
    assert (computer.requests.device, computer.requests.devices, computer.requests.processes) == ("cuda", 2, 3)
    assert computer.requests.parameters["gpus_per_node"] == 2
    assert computer.requests.parameters["additional_parameters"] == {"requeue": True, "qos": "high", "exclusive": True}
    assert computer.precision(network) == "bf16-mixed"
    assert find_computer(4, SlurmOptions(gpus_per_node=0), "auto", 1, 1).requests.device == "cpu"
    assert "gpus_per_node" not in find_computer(4, SlurmOptions(), "cpu", 1, 1).requests.parameters


def test_a_second_command_waits_for_the_first(tmp_path, caplog):
    out, settings, is_held = tmp_path / "out", {"window": 96}, Event()

    def first() -> None:
        with claimed_folder(out, settings) as is_finished:
            assert not is_finished
            is_held.set()
            time.sleep(1)
            mark_finished(out, settings, {"images": 1})

    thread = Thread(target=first)
    thread.start()
    assert is_held.wait(timeout=60)
    with claimed_folder(out, settings) as is_finished:
        assert is_finished
    thread.join()
    assert len(caplog.records) == 1
