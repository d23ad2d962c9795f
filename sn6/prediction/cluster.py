"""Process a plan in the jobs of a SLURM cluster: submit them, wait, and say which have failed."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sn6.errors import UserError, counted
from sn6.files import write_text
from sn6.prediction.plan import Plan
from sn6.prediction.shares import JOBS, RECORD, Share, deal, read_json, report_file
from sn6.prediction.slurm import cancel, final_state, log_file, running_jobs, submit
from sn6.progress import Phase, phase

POLL = 2.0  # seconds between two looks at the reports of the jobs
ASKED = 2.0, 30.0  # seconds between two questions to SLURM: at first, and at most
SLOW_FILES = 15.0  # seconds after the end of a job in which its report appears on a shared file system


@dataclass(frozen=True)
class Requests:
    """What is requested from the cluster.

    Attributes:
        jobs: largest number of jobs
        parameters: of submitit, for each job
        max_num_timeout: how many times a job is requeued at its time limit
        device: of a job, such as "cuda"
        devices: number of devices of a job
        processes: processes per device
    """

    jobs: int
    parameters: Mapping[str, Any]
    max_num_timeout: int
    device: str
    devices: int
    processes: int


def process_on_cluster(plan: Plan, requests: Requests) -> None:
    """Do all steps of a plan that are not done yet in jobs, after waiting for jobs that an earlier command left.

    Raises:
        UserError: SLURM refuses the jobs, or one of them has failed
    """
    folder = plan.folder / JOBS
    wait_for_earlier_jobs(folder)
    while parts := deal(plan, requests.jobs):
        shares = [Share(plan, part.images, requests.device, requests.devices, requests.processes) for part in parts]
        ids = submit(shares, folder, requests.parameters, requests.max_num_timeout)
        jobs = {job: part.size for job, part in zip(ids, parts, strict=True)}
        # a job starts to write when it sees its id here, so one that is not recorded never writes
        write_text(folder / RECORD, json.dumps({"jobs": jobs}))
        images = {number for part in parts for number in part.images or ()}
        wait(folder, jobs, f"predicting {counted(len(images), 'image')}" if images else "fusing images")


def wait_for_earlier_jobs(folder: Path) -> None:
    """Wait for the jobs that a command which was killed or stopped has left running, if there are any."""
    record = read_json(folder / RECORD)
    jobs = record.get("jobs", {})
    if not jobs or not still_running(folder, jobs):
        return
    if not record.get("cancelled"):
        wait(folder, jobs, "waiting for the jobs of an earlier command")
        return
    with phase("waiting for the end of cancelled jobs"):
        while still_running(folder, jobs):
            time.sleep(POLL)


def refuse_running_jobs(folder: Path) -> None:
    """Raise a UserError where jobs of an earlier command still write into the folder of unfinished results."""
    jobs = read_json(folder / JOBS / RECORD).get("jobs", {})
    if running := jobs and still_running(folder / JOBS, jobs):
        raise UserError(
            f"job {min(running)} of this prediction is still running; add cluster=slurm to wait for it, or cancel it "
            f"by scancel {min(running).partition('_')[0]}",
            kind="conflict",
            key="cluster",
            value=min(running),
        )


def still_running(folder: Path, jobs: Mapping[str, int]) -> set[str]:
    """Return the jobs that wait, run or are ending.

    Raises:
        UserError: SLURM does not say it
    """
    running = running_jobs(jobs)
    if running is None:
        raise UserError(
            f"{folder / RECORD} names jobs of SLURM, which does not say on this machine whether they still run; run "
            "the command on the cluster, or delete the file if they have ended",
            kind="unavailable",
            key="cluster",
            value=min(jobs),
        )
    return running


def wait(folder: Path, jobs: Mapping[str, int], name: str) -> None:
    """Wait until all jobs have ended, and show their progress; cancel them when this process is stopped.

    Args:
        folder: of the jobs
        jobs: id of each → amount of its work
        name: what they do

    Raises:
        UserError: some of them have not finished their work
    """
    array = min(jobs).partition("_")[0]
    try:
        with phase(f"{name} in {counted(len(jobs), 'job')} of SLURM ({array})", sum(jobs.values())) as shown:
            ended = wait_for_end(folder, jobs, shown)
    except BaseException:
        write_text(folder / RECORD, json.dumps({"jobs": dict(jobs), "cancelled": True}))
        cancel(jobs)
        raise
    (folder / RECORD).unlink(missing_ok=True)
    failed = {job: report for job, report in ended.items() if not report.get("finished")}
    if failed:
        raise failure(folder, failed, len(jobs))


def wait_for_end(folder: Path, jobs: Mapping[str, int], shown: Phase) -> dict[str, dict[str, Any]]:
    """Return the last report of each job when all have finished or are no more in the queue."""
    started = asked = time.monotonic()
    gone: dict[str, float] = {}  # job that is no more in the queue → when its report has to be there
    while True:
        reports = {job: read_json(report_file(folder, job)) for job in jobs}
        shown.update(sum(size - min(size, reports[job].get("left", size)) for job, size in jobs.items()))
        now = time.monotonic()
        open_jobs = [job for job, report in reports.items() if not report.get("finished")]
        if all(job in gone and ("error" in reports[job] or now > gone[job]) for job in open_jobs):
            return reports
        if now - asked > min(ASKED[1], max(ASKED[0], (now - started) / 10)):
            running = running_jobs(open_jobs)
            asked = now
            if running is not None:
                gone = {job: gone.get(job, now + report_delay(job)) for job in open_jobs if job not in running}
        time.sleep(POLL)


def report_delay(job: str) -> float:
    """Return for how many seconds the report of a job that has ended may still appear."""
    return SLOW_FILES if final_state(job) in (None, "COMPLETED", "COMPLETING", "RUNNING") else 0.0


def failure(folder: Path, failed: Mapping[str, Mapping[str, Any]], count: int) -> UserError:
    """Return the error of jobs that have not finished their work.

    Args:
        folder: of the jobs
        failed: id of each → its last report
        count: number of all jobs
    """
    job = min(failed, key=lambda one: ("error" not in failed[one], one))
    log = log_file(folder, job)
    reason = failed[job].get("error") or f"ended by SLURM, {final_state(job) or 'state unknown'}"
    where = (
        f"its log is {log}"
        if log.exists()
        else f"{log} does not exist, so out= may be on a file system that the nodes of the cluster do not see"
    )
    return UserError(
        f"{len(failed)} of {counted(count, 'job')} failed; job {job}: {reason}; {where}; run the same command again "
        "to predict what is missing",
        kind="failed",
        key="cluster",
        value=job,
    )
