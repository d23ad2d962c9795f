"""SIGINT and SIGTERM stop each command in each of its phases with status 130 or 143, and it resumes afterwards."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.commands import TESTS, small_run, start, wait_for_end
from helpers.errors import user_error
from helpers.piecework import spread_until_stopped
from helpers.stopping import SERVER, read_user_error, run_and_stop

from sn6.errors import UserError
from sn6.signals import SignalHandler, Stopped, stop, stop_on_signals

STATUS = {"SIGINT": 130, "SIGTERM": 143}
PHASES = {  # of a run of two epochs of three batches → the batch
    "config": 0,
    "data": 0,
    "statistics": 0,
    "setup_fit": 0,
    "sanity_check": 0,
    "training_0": 1,
    "training_1": 2,
    "validation_fit_0": 1,
    "validation_fit_1": 0,
    "teardown_fit": 0,
    "calibration": 0,
    "validation_validate_2": 1,
    "test": 1,
    "files": 0,
    "metrics": 0,
}
QUICK = ("training_1", "validation_fit_0", "calibration", "files")  # the others are slow tests


def last_line(folder):
    return (folder / "log.txt").read_text().splitlines()[-1]


def results(folder):
    """Return the metrics of a run without how long it took, and its weights."""
    metrics = json.loads((folder / "outputs/it/metrics.json").read_text())
    metrics.pop("timing")
    weights = torch.load(folder / "outputs/it/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return metrics, {name: tensor.tolist() for name, tensor in weights.items()}


def hidden_files(folder):
    return [path for path in folder.rglob(".*.part*") if path.is_file()]


@pytest.fixture(scope="module")
def overrides(bright_root):
    more = {
        "trainer.max_epochs": 2,
        "trainer.limit_train_batches": 3,
        "callbacks.resume_point.every_n_steps": 1,
        "callbacks.polygon_f1.curve": "[]",
        "trainer.limit_val_batches": "null",
        "trainer.limit_test_batches": "null",
    }
    stop_in = ("+callbacks.stop._target_=helpers.stopping.StopIn", "~callbacks.image_logging")
    return [*small_run(), *(f"{key}={value}" for key, value in more.items()), *stop_in, f"data.root={bright_root}"]


@pytest.fixture(scope="module")
def never_stopped(overrides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("never")
    assert run_and_stop(overrides, folder) == 0, (folder / "log.txt").read_text()
    return results(folder)


@pytest.mark.parametrize(
    "phase", [phase if phase in QUICK else pytest.param(phase, marks=pytest.mark.slow) for phase in PHASES]
)
def test_a_run_stops_in_each_phase(overrides, never_stopped, tmp_path, phase):
    name = ("SIGINT", "SIGTERM")[len(phase) % 2]
    status = run_and_stop(overrides, tmp_path, f"{name} {phase} process {PHASES[phase]}")
    assert status == STATUS[name], (tmp_path / "log.txt").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert read_user_error(tmp_path) == ("stopped", None, name)
    assert [line for line in log.splitlines() if line.startswith("sn6: ")] == [log.splitlines()[-1]]
    assert "Traceback" not in log
    assert not hidden_files(tmp_path)
    assert not (tmp_path / "outputs/it/metrics.json").exists()
    if phase.startswith("training"):  # the checkpoint of this step, or the one before the last step of an epoch
        step = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert step == {"training_0": 2, "training_1": 5}[phase]
    assert run_and_stop(overrides, tmp_path) == 0, (tmp_path / "log.txt").read_text()
    assert results(tmp_path) == never_stopped


def processes_of(session):
    """Return the processes of a session that still run."""
    lines = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if line.split()[0] == str(session) and not line.split()[1].startswith("Z")]


def assert_ends(process, name):
    """Assert that a command is stopped by a signal, with one line, and that no process of its own is left."""
    status, err = wait_for_end(process)
    assert status == STATUS[name], err
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("sn6: ")] == [err.splitlines()[-1]]
    until = time.monotonic() + 10
    while processes_of(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of(process.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase", "receiver", "ranks"),
    [
        ("SIGTERM", "sanity_check", "group", 2),
        ("SIGINT", "training_0", "group", 2),
        ("SIGTERM", "validation_fit_1", "process", 1),
        ("SIGINT", "calibration", "group", 1),
        ("SIGTERM", "test", "process", 2),
    ],
)
def test_a_run_stops_with_its_ranks_and_workers(overrides, tmp_path, name, phase, receiver, ranks):
    # a fork beside the threads of gloo may never return (Python 3.11), so two ranks have no workers
    more = [f"trainer.devices={ranks}", f"data.num_workers={2 - ranks}"]
    stop_in = f"{name} {phase} {receiver} {PHASES[phase]}"
    assert_ends(start(tmp_path, [*overrides, *more], SN6_TEST_STOP=stop_in), name)
    assert not hidden_files(tmp_path)


def start_command(*command, folder):
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        pytest.param("SIGTERM", os.killpg, marks=pytest.mark.slow),
        pytest.param("SIGINT", os.killpg, marks=pytest.mark.slow),
        ("SIGTERM", os.kill),
    ],
)
def test_simulate_stops_with_its_workers(tmp_path, name, kill):
    process = start_command("sn6.simulate", "root=city", "tiles=40", "test_tiles=0", "size=600", folder=tmp_path)
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("SN6*.tif")) and time.monotonic() < until:
        time.sleep(0.02)
    kill(process.pid, getattr(signal, name))
    assert_ends(process, name)
    assert not hidden_files(tmp_path)


def test_workers_remove_their_unfinished_files(tmp_path):
    process = SERVER.Process(target=spread_until_stopped, args=([tmp_path / "a", tmp_path / "b", tmp_path / "c"],))
    process.start()
    until = time.monotonic() + 60
    while len(hidden_files(tmp_path)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == STATUS["SIGTERM"]
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []


# --- the handlers


@pytest.mark.parametrize("name", STATUS)
def test_a_signal_is_one_line_and_a_status(capsys, name):
    with pytest.raises(SystemExit) as ended, stop_on_signals():
        signal.raise_signal(getattr(signal, name))
    assert ended.value.code == STATUS[name]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert name in lines[0]


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_code_that_survives_errors_does_not_survive_a_stop():
    survived = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            survived.append(True)

    with pytest.raises(SystemExit), stop_on_signals():
        work()
    assert not survived


def test_an_error_after_a_signal_is_the_stop(capsys):
    """As of a worker that got the signal too, before this process acts on it."""

    def work():
        signal.getsignal(signal.SIGTERM).first = lambda number: None
        signal.raise_signal(signal.SIGTERM)
        raise UserError("a worker was killed", kind="failed")

    with pytest.raises(SystemExit) as ended, stop_on_signals():
        work()
    assert ended.value.code == STATUS["SIGTERM"]
    with user_error("failed"), stop_on_signals():
        raise UserError("without a signal", kind="failed")


def test_a_repeated_signal_counts_once_and_a_later_one_ends_the_process(monkeypatch):
    """`timeout` sends its signal to the process and to its group."""
    first, ended, now = [], [], [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("sn6.signals.end_by", ended.append)
    handler = SignalHandler(first.append)
    for now[0] in (100.0, 100.2, 100.9):
        handler(signal.SIGTERM, None)
    assert (first, ended) == ([signal.SIGTERM], [])
    now[0] = 102.0
    handler(signal.SIGINT, None)
    assert (first, ended) == ([signal.SIGTERM], [signal.SIGINT])


def test_a_forked_process_leaves_an_interrupt_to_its_parent(monkeypatch):
    first, ended = [], []
    monkeypatch.setattr("sn6.signals.end_by", ended.append)
    handler = SignalHandler(first.append)
    handler.process += 1
    handler(signal.SIGINT, None)
    assert (first, ended) == ([], [])
    handler(signal.SIGTERM, None)
    assert (first, ended) == ([], [signal.SIGTERM])


@pytest.mark.parametrize(
    ("variables", "is_first"),
    [({}, True), ({"LOCAL_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False), ({"RANK": "3", "LOCAL_RANK": "0"}, False)],
)
def test_other_ranks_wait_for_the_first_one(monkeypatch, variables, is_first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("threading.Timer.start", lambda timer: None)
    if is_first:
        with pytest.raises(Stopped):
            stop(signal.SIGTERM)
    else:
        stop(signal.SIGTERM)
