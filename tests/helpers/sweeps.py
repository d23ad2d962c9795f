"""Start small sweeps, and read the files of their jobs."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.commands import small_run


def small_sweep(root: Path, *more: str, name: str = "it") -> list[str]:
    """Return the overrides of a sweep of small runs whose ranks write what they train with."""
    record = ("+callbacks.record._target_=helpers.stopping.RecordConfig", "trainer.limit_val_batches=null")
    return ["-m", *small_run(), *record, f"data.root={root}", f"name={name}", *more]


def read_jobs(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return folder → job.json of each job that has ended."""
    jobs = {path.parent: json.loads(path.read_text()) for path in folder.glob("*/job.json")}
    return {path: job for path, job in jobs.items() if job["status"] != "started"}


def read_ranks(folder: Path) -> list[dict[str, Any]]:
    """Return what each rank of a job trained with, see `helpers.stopping.RecordConfig`."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait until the condition holds; fail if the process ends before that."""
    for _ in range(5000):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("the condition never held")
