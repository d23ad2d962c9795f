"""Shapes and types of the signatures are checked while the tests run; archives and the command line for all."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import typechecking
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several tests at a time, each with processes of its own
install_import_hook("sn6", f"{typechecking.__name__}.checked")

if TYPE_CHECKING:
    from helpers.commands import Finished


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what needs a GPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same random tensors, whichever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def archive_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated archive of small tiles, made once as a user makes it; nobody writes into it."""
    root = tmp_path_factory.mktemp("archive") / "root"
    overrides = [f"root={root}", "tiles=24", "test_tiles=4", "seed=1", "size=128"]
    subprocess.run([sys.executable, "-m", "sn6.simulate", *overrides], check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="session")
def bright_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive whose validation tiles can be halved, with buildings that `helpers.bright.FirstBand` finds."""
    from helpers.bright import brighten

    root = tmp_path_factory.mktemp("bright") / "root"
    overrides = [f"root={root}", "tiles=48", "test_tiles=4", "seed=1", "size=128"]
    subprocess.run([sys.executable, "-m", "sn6.simulate", *overrides], check=True, stdout=subprocess.DEVNULL)
    brighten(root)
    return root


@pytest.fixture(scope="session")
def finished_run(archive_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a run `outputs/it` of `helpers.resuming.RUN` that is finished; nobody writes into it."""
    return working_folder(archive_root, tmp_path_factory, "", 0)


@pytest.fixture(scope="session")
def killed_run(archive_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a run that was killed in its second epoch."""
    return working_folder(archive_root, tmp_path_factory, "SIGKILL it 1 2", -signal.SIGKILL)


@pytest.fixture(scope="session")
def calibrated_run(bright_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on `bright_root` whose calibration chose another point than the config's; nobody writes."""
    from helpers.bright import bright_run
    from helpers.forked import python_m

    folder = tmp_path_factory.mktemp("calibrated")
    done = python_m(["sn6.run", *bright_run(bright_root, folder)], folder)
    assert done.status == 0, done.err
    return folder / "outputs/it"


def working_folder(root: Path, tmp_path_factory: pytest.TempPathFactory, stop: str, status: int) -> Path:
    """Make a run on the archive `root`, and return its working folder."""
    from helpers.resuming import RUN, log_of
    from helpers.stopping import run_and_stop

    folder = tmp_path_factory.mktemp("run")
    assert run_and_stop([*RUN, f"data.root={root}"], folder, stop or None) == status, log_of(folder)[-3000:]
    return folder


@pytest.fixture
def broken_root(archive_root: Path, tmp_path: Path) -> Path:
    """A copy of the archive to break."""
    return shutil.copytree(archive_root, tmp_path / "broken")


@pytest.fixture
def sn6_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> "Callable[..., Finished]":
    """`python -m sn6.run overrides...` in this process, from an empty folder."""
    from helpers.commands import call

    from sn6.run import main

    monkeypatch.chdir(tmp_path)
    return lambda *overrides: call(main, ["sn6.run", *overrides], monkeypatch, capsys)


@pytest.fixture
def sn6_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Callable[..., Finished]":
    """`python -m sn6.NAME overrides...` in this process, for the commands that call one function."""
    from importlib import import_module

    from helpers.commands import call

    from sn6.cli import run_command

    def command(name: str, *overrides: object) -> "Finished":
        function = getattr(import_module(f"sn6.{name}"), name)
        return call(lambda: run_command(function, f"sn6.{name}"), [f"sn6.{name}", *overrides], monkeypatch, capsys)

    return command
