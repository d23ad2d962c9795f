"""Shapes and types of the signatures are checked while the tests run; archives and the command line for all."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from jaxtyping import install_import_hook

install_import_hook("sn6", "typechecking.checked")


class Finished(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str


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
    words = [f"root={root}", "tiles=24", "test_tiles=4", "seed=1", "size=128"]
    subprocess.run([sys.executable, "-m", "sn6.simulate", *words], check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture
def sn6_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """`python -m sn6.run words...` in this process, from an empty folder."""
    from sn6.run import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["sn6.run", *words])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Finished(status, *capsys.readouterr())

    return call
