"""Run commands as `python -m` does, in processes forked from a server that has done all imports."""

import os
import runpy
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from helpers.stopping import SERVER, exit_status


class Ended(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str


def run_module(words: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """Become `python -m words...` in a folder, with the output in two files."""
    os.setsid()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    os.environ.update(environment)
    sys.path.insert(0, folder)
    sys.argv = words
    warnings.filterwarnings("ignore", message=".*found in sys.modules.*", category=RuntimeWarning)
    from multiprocessing import set_start_method

    set_start_method("fork", force=True)  # of the loaders' workers, as in a process from the shell
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def python_m(words: Iterable[object], folder: Path, **environment: str) -> Ended:
    """Run `python -m words...` in a folder, for commands that start no other ranks and no jobs of a sweep."""
    with tempfile.TemporaryDirectory() as captured:
        out, err = (Path(captured) / name for name in ("out", "err"))
        arguments = (list(map(str, words)), str(folder), environment, str(out), str(err))
        process = SERVER.Process(target=run_module, args=arguments)
        process.start()
        return Ended(exit_status(process), *(path.read_text() if path.exists() else "" for path in (out, err)))
