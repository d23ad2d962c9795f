"""Commands of sn6: overrides for runs that take seconds, in this process or in one of their own, and what they left."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sn6.errors import Kind, UserError

TESTS = Path(__file__).parents[1]
ANY = object()
SMALL = (
    "model.width=4",
    "data.crop=64",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.image_logging.tiles=0",
    "+trainer.enable_progress_bar=false",
    "~callbacks.progress_bar",
    "name=it",
)


class Finished(NamedTuple):
    """What a command in this process left."""

    status: int
    out: str
    err: str
    error: UserError | None  # that ended it


def small_run(model: str = "ternausnet", **more: Any) -> tuple[str, ...]:
    """The overrides of a run of a few steps."""
    return (*SMALL, f"model={model}", "model.pretrained=null", *(f"{key}={value}" for key, value in more.items()))


def call(
    main: Callable[[], None],
    argv: Iterable[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Finished:
    """Call the `main` of a command in this process with these arguments."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of a run in another test: its stderr is closed
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    capsys.readouterr()
    status, error = 0, None
    try:
        main()
    except SystemExit as stop:
        status = int(stop.code or 0)
        error = stop.__context__ if isinstance(stop.__context__, UserError) else None
    return Finished(status, *capsys.readouterr(), error)


def assert_fails(done: Finished, kind: Kind, key: object = ANY, value: Any = ANY) -> None:
    """Assert that a command ended with one line of a UserError of this kind, key and value, and no traceback."""
    assert done.error is not None, done.err
    assert (done.status, done.error.kind) == (1, kind), done.err
    assert key is ANY or done.error.key == str(key), done.err
    assert value is ANY or done.error.value == value, done.err
    assert "Traceback" not in done.err
    assert done.err.strip().splitlines()[-1] == f"sn6: {done.error}"


def assert_one_line(status: int, err: str, *parts: object) -> None:
    """Assert that a command in another process failed with one line that holds names from the input."""
    assert status == 1, err
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith("sn6: ")
    for part in parts:
        assert str(part) in line


def start(folder: Path, overrides: Iterable[str], before: Iterable[str] = (), **environment: str) -> subprocess.Popen:
    """Start `python -m sn6.run` in a process of its own, with the tests' callbacks at hand."""
    path = f"{TESTS}{os.pathsep}{TESTS.parent}"
    program = [sys.executable, *before, "-m", "sn6.run", *overrides]
    return subprocess.Popen(
        program,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_end(process: subprocess.Popen) -> tuple[int, str]:
    """Return exit status and stderr."""
    _, err = process.communicate(timeout=600)
    return process.returncode, err


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics.json of a run."""
    return json.loads((folder / "metrics.json").read_text())
