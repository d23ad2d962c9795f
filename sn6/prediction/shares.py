"""Deal the images of a prediction out to jobs on other machines, which write into the same folder."""

import heapq
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sn6.errors import UserError, first_line
from sn6.files import write_text
from sn6.prediction.plan import Plan
from sn6.prediction.schedule import COUNTED, steps_of
from sn6.prediction.workers import list_devices, process_all

JOBS = "jobs"  # folder of the jobs in that of the unfinished results
RECORD = "submitted.json"  # file in it: the jobs that may write into the folder
REPORTED = 5.0  # seconds between two reports of a job
RECORD_SEEN = 120.0  # seconds in which a job must see its own id in the record, on a slow file system


@dataclass(frozen=True)
class Part:
    """The work of a job.

    Attributes:
        images: numbers of the images whose windows it predicts, and which it finishes where they are not fused with
            others; None for all that is left
        size: number of windows, or of blocks and measurements
    """

    images: tuple[int, ...] | None
    size: int


def deal(plan: Plan, jobs: int) -> list[Part]:
    """Deal the work that is left out to at most `jobs` jobs that do not depend on one another; none is left: [].

    The images with most windows are dealt first, each to the job with the fewest windows. Steps of images that are
    fused with others are for one job, when all of their windows are predicted.
    """
    waits, predicted = steps_of(plan)
    alone = {step.key for step in waits if step.kind == "finish" and plan.layout.place(step.key) is None}
    windows = {number: len(plan.missing(number)) if number in predicted else 0 for number in predicted | alone}
    if not windows:
        return [Part(None, sum(step.kind in COUNTED for step in waits))] if waits else []
    dealt: list[list[int]] = [[] for _ in range(min(jobs, len(windows)))]
    loads = [(0, job) for job in range(len(dealt))]
    for number in sorted(windows, key=lambda number: (-windows[number], number)):
        load, job = loads[0]
        heapq.heapreplace(loads, (load + windows[number] + 1, job))  # 1: to finish it
        dealt[job].append(number)
    return [Part(tuple(sorted(numbers)), sum(windows[number] for number in numbers)) for numbers in dealt]


@dataclass(frozen=True)
class Share:
    """What a job does when submitit calls it, again after the job was preempted or reached its time limit.

    Attributes:
        plan: the whole prediction
        images: as those of `Part`
        device: such as "cuda"
        devices: number of them in the job
        processes: processes per device
    """

    plan: Plan
    images: tuple[int, ...] | None
    device: str
    devices: int
    processes: int

    def __call__(self) -> None:
        """Do what is missing of the work, and report to the file of the job."""
        report = Report(self.plan.folder / JOBS, job_id())
        try:
            report.wait_for_record()
            devices = list_devices(self.device, self.devices) * self.processes
            process_all(self.plan, devices, report, self.images)
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
            report.write(error=text)
            raise
        report.write(left=0, finished=True)

    def checkpoint(self) -> Any:
        """Return what submitit runs when the job starts again: the same, as finished windows are on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Report:
    """Tell the process that has submitted a job how far it is.

    Args:
        folder: of the jobs
        job: id
    """

    def __init__(self, folder: Path, job: str) -> None:
        self.folder, self.job = folder, job
        self.written = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Report the work that is left, every few seconds."""
        if time.monotonic() - self.written > REPORTED:
            self.write(left=total - done)

    def write(self, **values: Any) -> None:
        """Write the report."""
        write_text(report_file(self.folder, self.job), json.dumps(values))
        self.written = time.monotonic()

    def wait_for_record(self) -> None:
        """Wait until the record names this job.

        Raises:
            UserError: it does not, as the process that has submitted the job was killed or has submitted others
        """
        end = time.monotonic() + RECORD_SEEN
        while self.job not in read_json(self.folder / RECORD).get("jobs", {}):
            if time.monotonic() > end:
                raise UserError(
                    f"{self.folder / RECORD} does not name job {self.job}, so it must not write; run the command that "
                    "has submitted it again",
                    kind="stopped",
                    key="cluster",
                    value=self.job,
                )
            time.sleep(1)


def job_id() -> str:
    """Return the id of the job that this process is in, as submitit names it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def report_file(folder: Path, job: str) -> Path:
    """Return the file in which a job says how far it is."""
    return folder / f"{job}_report.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a job; {} where there is none, or none that can be read at this moment."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
