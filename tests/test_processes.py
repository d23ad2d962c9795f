"""Work in several processes comes back in order, raises its errors, and ends with the parent."""

import os
import signal
import time

import pytest
from helpers.errors import user_error
from helpers.piecework import end_by_signal, spread, square_or_fail
from helpers.stopping import SERVER

from sn6.processes import in_processes


def test_results_come_in_order_from_other_processes():
    squares, processes = zip(*in_processes(square_or_fail, [3, 1, 2], is_worth_it=True), strict=True)
    assert squares == (9, 1, 4)
    assert os.getpid() not in processes
    assert {process for _, process in in_processes(square_or_fail, [3, 1], is_worth_it=False)} == {os.getpid()}
    with user_error("invalid_value", "number", 7):
        list(in_processes(square_or_fail, [7, 1], is_worth_it=True))


def is_running(process):
    """Return whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads Linux's list of processes")
def test_a_process_that_is_killed_is_reported_in_one_line():
    with user_error("failed"):
        list(in_processes(end_by_signal, range(4), is_worth_it=True, processes=2))


def test_workers_end_with_a_killed_parent(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    parent = SERVER.Process(target=spread, args=(paths,))
    parent.start()
    until = time.monotonic() + 60
    while time.monotonic() < until and not any(path.exists() and path.read_text() for path in paths):
        time.sleep(0.05)
    workers = [int(path.read_text()) for path in paths if path.exists() and path.read_text()]
    assert workers
    assert all(map(is_running, workers))
    os.kill(parent.pid, signal.SIGKILL)
    parent.join(10)
    until = time.monotonic() + 60
    while time.monotonic() < until and any(map(is_running, workers)):
        time.sleep(0.05)
    assert not any(map(is_running, workers))
