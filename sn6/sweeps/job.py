"""A job of a sweep: a run in processes of its own, so that all its devices train the same configuration.

Lightning starts the other ranks of a run with the whole command line. In a sweep that would be the sweep again on every
rank (with values of its own where they are drawn), so each job is started as a run of its own.
"""

import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sn6.config.composition import compose_values, quote, search_path, to_plain
from sn6.config.overrides import key_of
from sn6.config.types import SWEEP_GROUPS
from sn6.errors import UserError, first_line
from sn6.files import exclusive_lock
from sn6.signals import STOP_SIGNALS, Stopped, signal_handlers
from sn6.sweeps.failure import REASON_FILE, STOPPED
from sn6.sweeps.gpus import free_gpus
from sn6.sweeps.job_file import JOB_FILE, JobRecord, has_metrics, read_job
from sn6.sweeps.objective import read_objective
from sn6.training.resume import ERROR_FILE, JOB_LOCK, is_same_run

log = logging.getLogger(__name__)


class JobExit(SystemExit):
    """End the sweep with the exit status of a job.

    Hydra attaches the job's result to the exception, and the exception to the result. A worker of joblib takes minutes
    to pickle that, so only the status is pickled.
    """

    def __reduce__(self) -> tuple[type[SystemExit], tuple[Any, ...]]:
        return SystemExit, self.args


def run_job(config: DictConfig, overrides: Sequence[str]) -> float:
    """Train one job, write `job.json` to its folder and return its objective, or NaN if it failed.

    Args:
        config: of the job
        overrides: of the job

    Raises:
        SystemExit: the job was stopped, or it failed and `on_failed_job` is stop
    """
    context = HydraConfig.get()
    folder, sweep = Path(context.runtime.output_dir), Path(context.sweep.dir).absolute()
    names = {"name": str(Path(sweep.name) / folder.relative_to(sweep)), "group": sweep.name}
    overrides = [override for override in overrides if key_of(override) not in SWEEP_GROUPS]
    if config.resume and is_finished(config, overrides, folder):
        log.info("%s is finished; set another name=... to run again, or resume=false to start over", folder)
        return read_objective(folder, config.objective)
    on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"  # which has started a process for each device already
    is_first = not on_slurm or os.environ["SLURM_PROCID"] == "0"
    record = JobRecord(folder, overrides, config.objective)
    if is_first:
        record.start()
    try:
        if on_slurm:
            status = run_in_process(compose_values(overrides, **names), overrides)
        else:
            of_run = names | {"hydra.run.dir": str(folder), "hydra.mode": "RUN"}
            command = [*search_path(), *overrides, *(f"{key}={quote(value)}" for key, value in of_run.items())]
            gpus = free_gpus(config, context.runtime.choices["hydra/launcher"])
            with exclusive_lock(folder / JOB_LOCK, f"trains in {folder}"), gpus as environment:
                status = run_in_subprocess(command, {**environment, REASON_FILE: str(folder / ERROR_FILE)})
    except Stopped as stopped:  # while it waited
        record.end(stopped.status)
        raise
    if is_first:
        record.end(status)
    # a job that has been trained by other overrides than these is not a failed one
    if status in STOPPED or (status and (has_metrics(folder) or config.on_failed_job == "stop")):
        raise JobExit(status)
    return read_objective(folder, config.objective) if status == 0 else math.nan


def is_finished(config: DictConfig, overrides: Sequence[str], folder: Path) -> bool:
    """Return whether the job is finished with this config, so that no process need be started for it."""
    if read_job(folder / JOB_FILE).get("status") != "finished" or not has_metrics(folder):
        return False
    from sn6.training.resolved_config import resolve
    from sn6.training.stages import stage_configs

    values = to_plain(config)
    stages = {folder: values}
    if values["stages"]:
        stages = {folder / name: stage for name, stage in stage_configs(values, overrides).items()}
    try:
        return all(is_same_run(path, resolve(stage).to_dict()) for path, stage in stages.items())
    except UserError:  # the job itself reports it
        return False


def run_in_process(values: Mapping[str, Any], overrides: Sequence[str]) -> int:
    """Train in this process and return the exit status that it would have."""
    from sn6.training.experiment import run  # torch and Lightning, for which other jobs have their own process

    try:
        run(values, overrides)
    except Stopped as stop:
        return stop.status
    except Exception as error:  # of one job; `run` has written it to error.txt
        print(f"sn6: {first_line(error)}", file=sys.stderr)
        return 1
    return 0


def run_in_subprocess(overrides: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `python -m sn6 run overrides...`, pass signals on to it, and return its exit status.

    Raises:
        Stopped: by a signal that came too late for the run
    """
    command = [sys.executable, "-m", "sn6", "run", *overrides]
    received: list[int] = []
    child = None

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        if child is not None:
            child.send_signal(number)

    with signal_handlers(pass_on):
        child = subprocess.Popen(command, env=os.environ | environment)
        for number in received:
            child.send_signal(number)
        status = child.wait()
    if -status in STOP_SIGNALS:  # before it could report that
        print(f"sn6: {Stopped(-status)}", file=sys.stderr)
    status = 128 - status if status < 0 else status  # as a shell reports an end by a signal
    if received and status not in STOPPED:
        signal.raise_signal(received[0])
    return status
