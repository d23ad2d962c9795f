"""Submit work to a SLURM cluster, ask whether it still runs, and cancel it."""

import io
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import NonNegativeInt, PositiveInt

from sn6.errors import UserError, first_line

SIGNAL_DELAY = 30  # seconds before its time limit at which a job is requeued; it loses the windows in progress
FORGOTTEN = "Invalid job id"  # error of squeue, of jobs that ended some minutes ago


@dataclass(frozen=True)
class SlurmOptions:
    """What each job requests; names and defaults as in conf/cluster/slurm.yaml."""

    partition: Annotated[str | None, "with cluster=slurm: partition of the cluster"] = None
    account: Annotated[str | None, "with cluster=slurm: account of the cluster"] = None
    timeout_min: Annotated[PositiveInt, "with cluster=slurm, minutes: a job is requeued after this time"] = 1440
    max_num_timeout: Annotated[NonNegativeInt, "with cluster=slurm: how many times a job is requeued"] = 10
    mem_gb: Annotated[PositiveInt, "with cluster=slurm, GB: memory of a job"] = 64
    cpus_per_task: Annotated[PositiveInt, "with cluster=slurm: cores of a job"] = 8
    gpus_per_node: Annotated[
        NonNegativeInt | None, "with cluster=slurm: GPUs of a job; null is devices=, or none with device=cpu"
    ] = None
    sbatch: Annotated[
        list[str] | str | None, "with cluster=slurm: further options of sbatch, such as [qos=high,exclusive]"
    ] = None

    def gpus(self, device: str, devices: int) -> int:
        """Return the number of GPUs of a job, which predicts on `devices` of `device`."""
        if self.gpus_per_node is not None:
            return self.gpus_per_node
        return 0 if device == "cpu" else devices

    def parameters(self, gpus: int) -> dict[str, Any]:
        """Return the parameters of submitit for a job with so many GPUs."""
        further = [self.sbatch] if isinstance(self.sbatch, str) else self.sbatch or []
        pairs = [one.removeprefix("--").partition("=") for one in further]
        requested = {
            "job_name": "sn6-predict",
            "nodes": 1,
            "ntasks_per_node": 1,
            "time": self.timeout_min,
            "mem": f"{self.mem_gb}GB",
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": gpus or None,
            "partition": self.partition,
            "account": self.account,
            "signal_delay_s": SIGNAL_DELAY,
            "additional_parameters": {"requeue": True}
            | {key: value if equals else True for key, equals, value in pairs},
        }
        return {name: value for name, value in requested.items() if value is not None}


DEFAULT_OPTIONS = SlurmOptions()


def check_cluster(cluster: str | None, jobs: int | None, options: SlurmOptions) -> None:
    """Raise a UserError where options of a cluster are given without one, or this machine has no SLURM."""
    if cluster is None:
        given = [("jobs", jobs)] if jobs is not None else []
        given += [
            (field.name, value) for field in fields(options) if (value := getattr(options, field.name)) != field.default
        ]
        for key, value in given[:1]:
            raise UserError(
                f"{key}={value} is for a cluster; add cluster=slurm, or leave {key}= out",
                kind="conflict",
                key=key,
                value=value,
            )
        return
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError(
            "cluster=slurm needs submitit, which is not installed; pip install 'sn6[slurm]'",
            kind="unavailable",
            key="cluster",
            value=cluster,
        ) from None
    missing = next((name for name in ("sbatch", "srun", "squeue", "scancel") if not shutil.which(name)), None)
    if missing:
        raise UserError(
            f"cluster=slurm: SLURM ({missing}) is not installed on this machine; leave out cluster=slurm, or run the "
            "command on the cluster",
            kind="not_found",
            key="cluster",
            value=cluster,
        )


def submit(
    work: Sequence[Callable[[], None]], folder: Path, parameters: Mapping[str, Any], max_num_timeout: int
) -> list[str]:
    """Submit one job for each function, as an array where they are several, and return their ids.

    Args:
        work: picklable
        folder: of the functions and the logs, on a file system that all nodes see
        parameters: of submitit
        max_num_timeout: how many times a job is requeued at its time limit

    Raises:
        UserError: SLURM refuses the jobs
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(folder, max_num_timeout)
    executor.update_parameters(**parameters, array_parallelism=len(work))
    try:
        with redirect_stderr(io.StringIO()):  # submitit prints the error that it raises
            return [job.job_id for job in executor.submit_array(work)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(
            f"cluster=slurm: SLURM has refused the jobs ({first_line(error)}); change the options of the jobs",
            kind="unavailable",
            key="cluster",
            value="slurm",
        ) from None


def log_file(folder: Path, job: str) -> Path:
    """Return the file to which submitit writes the errors of a job."""
    return folder / f"{job}_0_log.err"


def ask(*words: str) -> subprocess.CompletedProcess[str] | None:
    """Return what a command of SLURM answers; None where it is not on this machine."""
    try:
        return subprocess.run(words, capture_output=True, text=True)
    except OSError:
        return None


def running_jobs(jobs: Collection[str]) -> set[str] | None:
    """Return those of the jobs that wait, run or are ending; None where SLURM does not answer."""
    arrays = sorted({job.partition("_")[0] for job in jobs})
    answer = ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(arrays)}")
    if answer is None or (answer.returncode and FORGOTTEN not in answer.stderr):
        return None
    return set(answer.stdout.split()) & set(jobs)


def final_state(job: str) -> str | None:
    """Return how SLURM says that a job has ended, such as OUT_OF_MEMORY; None where it keeps no accounts."""
    answer = ask("sacct", "--parsable2", "--noheader", "--format=JobID,State", f"--jobs={job}")
    if answer is None:
        return None
    rows = [line.split("|") for line in answer.stdout.splitlines()]
    return next((row[1].split()[0] for row in rows if row[0] == job and row[1:] and row[1]), None)


def cancel(jobs: Collection[str]) -> None:
    """Cancel jobs; those that have ended are left alone."""
    subprocess.run(["scancel", *sorted({job.partition("_")[0] for job in jobs})], capture_output=True)
