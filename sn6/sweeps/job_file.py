"""The `job.json` of a sweep's job: its overrides, and how it ended."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sn6.errors import UserError
from sn6.files import read_json, write_text
from sn6.sweeps.failure import STOPPED, ending, read_reason
from sn6.sweeps.objective import read_objective
from sn6.training.resume import ERROR_FILE, METRICS_FILE

JOB_FILE = "job.json"


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


def has_metrics(folder: Path) -> bool:
    """Return whether a run has a `metrics.json` that can be read, and so is finished."""
    try:
        read_json(folder / METRICS_FILE)
    except UserError:
        return False
    return True
