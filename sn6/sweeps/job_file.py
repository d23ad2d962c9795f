"""The `job.json` of a sweep's job: its overrides, and how it ended."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sn6.errors import UserError
from sn6.files import read_json, write_text
from sn6.sweeps.failure import STOPPED, ending, read_reason
from sn6.sweeps.objective import read_objective
from sn6.training.resume import ERROR_FILE, LOCKS, METRICS_FILE

JOB_FILE = "job.json"
DYING = 1.0  # seconds after which a process that was killed holds no lock any more


@dataclass(frozen=True)
class JobRecord:
    """Write the `job.json` of a job; what it says of a finished one stays.

    Attributes:
        folder: of the job
        overrides: of the job
        objective: of the sweep
    """

    folder: Path
    overrides: Sequence[str]
    objective: str
    started: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Write that the job has started, and remove the reason why it failed before."""
        if read_job(self.folder / JOB_FILE).get("status") != "finished":
            (self.folder / ERROR_FILE).unlink(missing_ok=True)
            self._write({"status": "started"})

    def end(self, status: int) -> None:
        """Write the objective, or why there is none, by the job's exit status."""
        is_finished = read_job(self.folder / JOB_FILE).get("status") == "finished"
        if has_metrics(self.folder) and (status or is_finished):
            return
        result: dict[str, Any] = {"objective": self.objective, "seconds": round(time.monotonic() - self.started, 1)}
        if status == 0:
            result |= {"status": "finished", "value": read_objective(self.folder, self.objective)}
        else:
            reason = ending(status) or read_reason(self.folder / ERROR_FILE) or f"ended with exit status {status}"
            result |= {"status": "stopped" if status in STOPPED else "failed", "error": reason}
        self._write(result)

    def _write(self, result: Mapping[str, Any]) -> None:
        job = {"overrides": self.overrides, **result}
        write_text(self.folder / JOB_FILE, json.dumps(job, indent=2) + "\n")


def read_job(path: Path) -> dict[str, Any]:
    """Read a `job.json`; empty where it is missing, broken or foreign, so that the job is run again."""
    try:
        job = read_json(path)
    except UserError:
        return {}
    is_job = isinstance(job.get("status"), str) and isinstance(job.get("overrides"), list)
    return job if is_job and all(isinstance(one, str) for one in job["overrides"]) else {}


def is_running(folder: Path, wait: float = 0.0) -> bool:
    """Return whether a process runs the job in this folder, and still does after `wait` seconds."""
    try:
        for name in LOCKS:
            with FileLock(folder / name, timeout=wait):
                pass
    except Timeout:
        return True
    return False


def record_stopped_jobs(folder: Path, status: int) -> None:
    """Write "stopped" to the `job.json` of jobs that have started and not ended, and that no process runs.

    Args:
        folder: of the sweep
        status: exit status of the sweep
    """
    for path in folder.rglob(JOB_FILE):
        job = read_job(path)
        if job.get("status") == "started" and not is_running(path.parent, DYING):
            job |= {"status": "stopped", "error": ending(status)}
            write_text(path, json.dumps(job, indent=2) + "\n")


def has_metrics(folder: Path) -> bool:
    """Return whether a run has a `metrics.json` that can be read, and so is finished."""
    try:
        read_json(folder / METRICS_FILE)
    except UserError:
        return False
    return True
