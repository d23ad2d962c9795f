"""A process of a run that is killed, as by the kernel when the memory ends, is reported in one line."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.commands import assert_one_line, small_run, start, wait_for_end

from sn6.training.killed import failed_rank

LONG = ["trainer.max_epochs=2000", "trainer.check_val_every_n_epoch=1000", "callbacks.image_logging=null"]


def children_of(process):
    """The processes that a process has started, without those of multiprocessing's own, which run other code."""
    found = [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return [number for number in found if b"sn6.run" in Path(f"/proc/{number}/cmdline").read_bytes()]


def kill_a_child(process, log):
    """Kill a process that a run has started, after its first step."""
    until = time.monotonic() + 200
    while not (log.exists() and children_of(process)):
        assert time.monotonic() < until
        assert process.poll() is None, wait_for_end(process)
        time.sleep(0.2)
    os.kill(children_of(process)[0], signal.SIGKILL)
    return wait_for_end(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "key"), [("trainer.devices=2", "rank 1"), ("data.num_workers=1", "data.num_workers=1")]
)
def test_a_process_that_is_killed(archive_root, tmp_path, override, key):
    run = [*small_run("unet"), "model.depth=2", *LONG, f"data.root={archive_root}", override]
    status, err = kill_a_child(start(tmp_path, run), tmp_path / "outputs/it/metrics.csv")
    assert_one_line(status, err, key)
    assert (tmp_path / "outputs/it/error.txt").read_text().strip() in err
    assert not (tmp_path / "outputs/it/metrics.json").exists()


def test_a_killed_rank_is_named_before_one_that_ended_because_of_it():
    processes = [subprocess.Popen(["sh", "-c", how]) for how in ("exit 3", "kill -9 $$", "exit 0")]
    for process in processes:
        process.wait()
    error = str(failed_rank(processes))
    assert "rank 2" in error
    assert "SIGKILL" in error
    failed, _, ended = processes
    assert "rank 1" in str(failed_rank([failed]))
    assert failed_rank([failed], killed_only=True) is None  # it has printed why
    assert failed_rank([ended]) is None
