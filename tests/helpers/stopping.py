"""Stop runs at a given step, in processes forked from a server that has done all imports."""

import importlib
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from lightning import Callback

from sn6.errors import UserError
from sn6.signals import Stopped

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "helpers.stopping",
        "sn6.run",
        "sn6.training.experiment",
        "sn6.prediction.workers",
        "sn6.models.ternausnet",
        "sn6.plots.curves",
        "matplotlib.backends.backend_agg",
        "timm",
        "wandb",
    ]
)
STOP = "SN6_TEST_STOP"  # "SIGKILL eo 1 2": in stage eo, epoch 1, before batch 2; batch -1 is before the training
ERROR = "user_error.json"
LIMIT = 2**16  # bytes that a file may have on a full disk: fewer than a checkpoint, more than the log
STOP_CALLBACK = "+callbacks.stop._target_=helpers.stopping.StopAt"


class StopAt(Callback):
    """Stop this process where the environment variable says so; do nothing without it."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self.stop(trainer, -1)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.stop(trainer, batch_idx)

    def stop(self, trainer: Any, batch: int) -> None:
        action, *point = os.environ.get(STOP, "none").split()
        if point != [Path(trainer.default_root_dir).name, str(trainer.current_epoch), str(batch)]:
            return
        if action == "DISKFULL":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), getattr(signal, action))


class StopIn(Callback):
    """Send a signal in a phase of a run, as the variable says: "SIGTERM test process 1" or "SIGINT ... group".

    The first rank sends it, to itself or to all processes of the run, as a terminal does; the number is of the batch.
    """

    def send(self, trainer: Any, phase: str, batch: int = 0) -> None:
        """Send the signal if this is the phase."""
        action, wanted, receiver, number = os.environ.get(STOP, "none none none 0").split()
        if trainer.is_global_zero and (wanted, int(number)) == (phase, batch):
            os.environ.pop(STOP)
            send_signal(action, receiver)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.send(trainer, f"setup_{trainer.state.fn.value}")

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self.send(trainer, "sanity_check")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.send(trainer, f"training_{trainer.current_epoch}", batch_idx)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.send(trainer, f"validation_{trainer.state.fn.value}_{trainer.current_epoch}", batch_idx)

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        self.send(trainer, "calibration", batch_idx)

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        self.send(trainer, "test", batch_idx)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.send(trainer, f"teardown_{trainer.state.fn.value}")


BEFORE = {  # phase of a run without a callback → function at whose call the signal is sent
    "config": "sn6.training.experiment.check_types",
    "data": "sn6.training.stage.make_modules",
    "statistics": "sn6.data.datamodule.measure_statistics",
    "files": "sn6.training.stage.write_artifacts",
    "metrics": "sn6.training.stage.log_checkpoint",
}


def stop_before(action: str, phase: str, *receiver: str) -> None:
    """Send a signal to this process before it calls the function of a phase."""
    if phase not in BEFORE:
        return
    module, _, name = BEFORE[phase].rpartition(".")
    function = getattr(importlib.import_module(module), name)

    def call(*arguments: Any, **options: Any) -> Any:
        send_signal(action, receiver[0])
        return function(*arguments, **options)

    setattr(sys.modules[module], name, call)


def send_signal(action: str, receiver: str) -> None:
    """Send a signal to this process, or to all of its group."""
    number = getattr(signal, action)
    os.kill(os.getpid(), number) if receiver == "process" else os.killpg(os.getpgid(0), number)


class RecordConfig(Callback):
    """Write what each rank trains with to `rank0.json`, `rank1.json`, ... in the run's folder."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        config = {
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "loss": type(pl_module.losses.modules_of_heads[0]).__name__,
            "crop": trainer.datamodule.crop,
            "ranks": trainer.world_size,
        }
        path = Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps(config))


class CountFits(Callback):
    """Add a line to `fits.txt` in the run's folder whenever a training starts."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        with (Path(trainer.default_root_dir) / "fits.txt").open("a") as file:
            file.write("started\n")


def run_main(overrides: list[str], folder: str, stop: str | None) -> None:
    """Call the `main` of `sn6.run` in this process, with its output in `log.txt`, a UserError or Stopped in ERROR."""
    multiprocessing.set_start_method("fork", force=True)  # of the loaders' workers, as in a process from the shell
    os.chdir(folder)
    os.environ.pop(STOP, None)
    if stop is not None:
        os.environ[STOP] = stop
        stop_before(*stop.split())
    sys.argv = ["sn6.run", *overrides]
    from sn6.run import main

    try:
        with open("log.txt", "a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
            main()
    except SystemExit as stop:
        if isinstance(error := stop.__context__, UserError | Stopped):
            Path(ERROR).write_text(json.dumps([error.kind, error.key, error.value], default=str))
        raise


def predict_main(overrides: list[str], steps: int) -> None:
    """Call `sn6.predict` in this new process, which is killed before its piece of work number `steps`."""
    from sn6.cli import run_command
    from sn6.predict import predict
    from sn6.prediction import workers

    done = itertools.count()

    def kill_at_step(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(piece: Any) -> Any:
            if next(done) == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(piece)

        return call

    workers.predict, workers.run = kill_at_step(workers.predict), kill_at_step(workers.run)
    sys.argv = ["sn6.predict", *overrides]
    run_command(predict, "sn6.predict")


def start_run(overrides: list[str], folder: Path, stop: str | None = None) -> Any:
    """Start `python -m sn6.run overrides...` in `folder`, stopped at `stop`, and return its process."""
    process = SERVER.Process(target=run_main, args=(overrides, str(folder), stop))
    process.start()
    return process


def exit_status(process: Any) -> int:
    """Return the exit status of a process when it ends; negative is the signal that ended it."""
    process.join(timeout=600)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def predict_and_stop(overrides: list[str], steps: int) -> int:
    """Return the exit status of a prediction that is killed after `steps` windows and images."""
    process = SERVER.Process(target=predict_main, args=(overrides, steps))
    process.start()
    return exit_status(process)


def run_and_stop(overrides: list[str], folder: Path, stop: str | None = None) -> int:
    """Return the exit status of `python -m sn6.run overrides...` in `folder`, stopped at `stop`."""
    return exit_status(start_run(overrides, folder, stop))


def read_user_error(folder: Path) -> tuple[Any, ...]:
    """Return kind, key and value of the UserError that ended the last failed run in `folder`."""
    return tuple(json.loads((folder / ERROR).read_text()))
