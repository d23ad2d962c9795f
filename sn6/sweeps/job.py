"""A job of a sweep: a plain run in processes of its own, so that all its devices train the same configuration.

Lightning starts the other ranks of a run with the whole command line. In a sweep that would be the sweep, once more on
every rank (with values of its own where they are drawn), so each job is started anew as a run.
"""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, open_dict

from sn6.config import to_plain
from sn6.errors import UserError, first_line
from sn6.files import exclusive_lock, write_text
from sn6.training.resume import FREE, LOCK_FILE, is_as_it_was, is_under
from sn6.training.stages import stage_configs

ERROR_FILE, JOB_FILE, METRICS = "error.txt", "job.json", "metrics.json"
IN_A_SWEEP_ALONE = ("sweep", "cluster")  # config groups that a plain run does not take
STOPPED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM))  # what a run that was told to stop exits by
log = logging.getLogger(__name__)


def run_job(config: DictConfig, words: list[str]) -> float:
    """Trains one job, leaves `job.json` in its folder and returns its objective, or NaN where it failed.

    Args:
        config: of the job
        words: of the job

    Raises:
        SystemExit: the job was stopped, or it failed and `on_failed_job` says stop
    """
    context = HydraConfig.get()
    folder, sweep = Path(context.runtime.output_dir), Path(context.sweep.dir).absolute()
    name, group = str(Path(sweep.name) / folder.relative_to(sweep)), sweep.name
    words = [word for word in words if word.lstrip("+").partition("=")[0] not in IN_A_SWEEP_ALONE]
    if config.resume and is_finished(config, words, folder):
        log.info("%s is finished; give another name=... to run again, or resume=false to start over", folder)
        return objective_of(folder, config.objective)
    started = time.monotonic()
    on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"  # which has started a process for each device already
    is_first = not on_slurm or os.environ["SLURM_PROCID"] == "0"
    if is_first:
        mark_started(folder, words)
    if on_slurm:
        with open_dict(config):
            config.name, config.group = name, group
        status = run_in_process(config, words)
    else:
        told = {"name": name, "group": group, "hydra.run.dir": str(folder), "hydra.mode": "RUN"}
        words_of_run = [*words, *(f"{key}={quote(value)}" for key, value in told.items())]
        with exclusive_lock(folder / LOCK_FILE, f"trains in {folder}"), free_gpus(config) as environment:
            status = run_in_subprocess(words_of_run, environment)
    if status in STOPPED:
        sys.exit(status)
    value = objective_of(folder, config.objective) if status == 0 else math.nan
    job = {"words": words, "objective": config.objective, "seconds": round(time.monotonic() - started, 1)}
    if is_first:
        record(folder, job, value, status)
    if status and (folder / METRICS).exists():  # it has been trained, by other words than these
        sys.exit(status)
    if status and config.on_failed_job == "stop":
        sys.exit(status)
    return value


def is_finished(config: DictConfig, words: list[str], folder: Path) -> bool:
    """Whether the job is finished, by these words and this config: then no process need be started to hear it."""
    if not ((folder / METRICS).exists() and (folder / JOB_FILE).exists()):
        return False
    job = json.loads((folder / JOB_FILE).read_text())
    if job["status"] != "finished" or fixed_overrides(job["words"]) != fixed_overrides(words):
        return False
    if not config.stages:
        return is_as_it_was(folder, to_plain(config))
    return all(is_as_it_was(folder / name, to_plain(stage)) for name, stage in stage_configs(config, words).items())


def fixed_overrides(words: list[str]) -> list[str]:
    """The words that a job which goes on may not change."""
    return [word for word in words if not is_under(word.lstrip("+~").partition("=")[0], FREE)]


def run_in_process(config: DictConfig, words: list[str]) -> int:
    """Trains in this process; the status that it would exit with."""
    from sn6.callbacks.resume_point import Stopped  # torch and Lightning, for which other jobs have their own process
    from sn6.training.experiment import explained_run

    try:
        explained_run(config, words)
    except Stopped as stop:
        return stop.status
    except Exception as error:  # whatever it is, it is one job's: `run` has left it in error.txt
        print(f"sn6: {first_line(error)}", file=sys.stderr)
        return 1
    return 0


def run_in_subprocess(words: list[str], environment: dict[str, str]) -> int:
    """Exit status of `python -m sn6.run words...`, which hears the signals that this process hears.

    Ctrl-C reaches all processes of the terminal, so it is only waited for; SIGTERM is handed on.
    """
    child = subprocess.Popen([sys.executable, "-m", "sn6.run", *words], env=os.environ | environment)
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
    }
    try:
        status = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status  # as a shell tells an end by a signal


def quote(text: str) -> str:
    """A value that Hydra reads as this text, whatever signs are in it."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


@contextmanager
def free_gpus(config: DictConfig) -> Iterator[dict[str, str]]:
    """`CUDA_VISIBLE_DEVICES` of GPUs that no other job on this machine holds; waits until there are enough.

    Nothing is said where jobs run one after another, or the run names its GPUs or wants none.
    """
    wanted, launcher = config.trainer.devices, HydraConfig.get().runtime.choices["hydra/launcher"]
    if launcher == "basic" or not isinstance(wanted, int) or config.trainer.accelerator == "cpu":
        yield {}
        return
    import torch

    from sn6.training.devices import on_gpu

    if not on_gpu(config.trainer.accelerator):
        yield {}
        return
    there = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    with ExitStack() as stack:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(acquire_gpus(there.split(","), wanted, stack))}


def acquire_gpus(names: list[str], number: int, stack: ExitStack) -> list[str]:
    """The first `number` of `names` that can be locked, held until `stack` closes.

    Raises:
        UserError: there are fewer
    """
    if number > len(names):
        raise UserError(f"trainer.devices={number}: there are {len(names)} GPUs here; set trainer.devices={len(names)}")
    while True:
        with ExitStack() as held:
            locked = []
            for name in names:
                lock = FileLock(Path(tempfile.gettempdir()) / f"sn6-gpu-{name}.lock", mode=0o666)
                try:
                    held.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    continue
                locked.append(name)
                if len(locked) == number:
                    stack.enter_context(held.pop_all())
                    return locked
        time.sleep(1)


def objective_of(folder: Path, objective: str) -> float:
    """What the run in `folder` came to."""
    return float(json.loads((folder / METRICS).read_text())[objective])


def mark_started(folder: Path, words: list[str]) -> None:
    """Leaves the words of a job that starts, where it has not ended before."""
    if not (folder / JOB_FILE).exists():
        write_text(folder / JOB_FILE, json.dumps({"words": words, "status": "started"}, indent=2) + "\n")


def record(folder: Path, job: dict[str, Any], value: float, status: int) -> None:
    """Leaves `job.json`: what was asked, what came out, or why nothing did; never in the place of a finished one."""
    if (folder / METRICS).exists() and (status or json.loads((folder / JOB_FILE).read_text())["status"] == "finished"):
        return
    path = folder / ERROR_FILE
    if status == 0:
        job |= {"status": "finished", "value": value}
    else:
        error = path.read_text().strip().splitlines()[-1] if path.exists() else f"ended with exit status {status}"
        job |= {"status": "failed", "error": error}
    write_text(folder / JOB_FILE, json.dumps(job, indent=2) + "\n")
