"""Callbacks that stop a run or tell of it, and runs in processes forked from a server that has imported all already."""

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

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "helpers.stopping",
        "sn6.run",
        "sn6.prediction.workers",
        "sn6.models.ternausnet",
        "matplotlib.backends.backend_agg",
    ]
)
ENVIRONMENT = "SN6_TEST_STOP"  # "SIGKILL eo 1 2": in stage eo, epoch 1, before batch 2; batch -1 is before the training


class StopAt(Callback):
    """Stops its own process as the environment says, and does nothing where it says nothing."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self.stop(trainer, -1)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.stop(trainer, batch_idx)

    def stop(self, trainer: Any, batch: int) -> None:
        how, *where = os.environ.get(ENVIRONMENT, "no").split()
        here = [Path(trainer.default_root_dir).name, str(trainer.current_epoch), str(batch)]
        if where != here:
            return
        if how == "DISKFULL":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        else:
            os.kill(os.getpid(), getattr(signal, how))


class RecordConfig(Callback):
    """Each rank writes what it trains with."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        told = {
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "loss": type(pl_module.loss).__name__,
            "crop": trainer.datamodule.crop,
            "ranks": trainer.world_size,
        }
        path = Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps(told))


def run_here(words: list[str], folder: str, stop: str | None) -> None:
    """The command line in a new process."""
    multiprocessing.set_start_method("fork", force=True)  # of the loaders' workers, as in a process from the shell
    os.chdir(folder)
    os.environ.pop(ENVIRONMENT, None)
    if stop is not None:
        os.environ[ENVIRONMENT] = stop
    sys.argv = ["sn6.run", *words]
    from sn6.run import main

    with open("log.txt", "a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        main()


def predict_here(words: list[str], steps: int) -> None:
    """`python -m sn6.predict words...` in a new process, which is killed before its piece of work number `steps`."""
    from sn6.cli import run_command
    from sn6.predict import predict
    from sn6.prediction import workers

    done = itertools.count()

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(piece: Any) -> Any:
            if next(done) == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(piece)

        return call

    workers.predict, workers.finish = dying(workers.predict), dying(workers.finish)
    sys.argv = ["sn6.predict", *words]
    run_command(predict, "sn6.predict")


def predict_and_stop(words: list[str], steps: int) -> int:
    """Exit status of a prediction that is killed after `steps` windows and images; negative is the signal."""
    process = SERVER.Process(target=predict_here, args=(words, steps))
    process.start()
    process.join(timeout=240)
    assert process.exitcode is not None, "the prediction hangs"
    return process.exitcode


def run_and_stop(words: list[str], folder: Path, stop: str | None = None) -> int:
    """Exit status of `python -m sn6.run words...` in `folder`; negative is the signal that ended it."""
    process = SERVER.Process(target=run_here, args=(words, str(folder), stop))
    process.start()
    process.join(timeout=240)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode
