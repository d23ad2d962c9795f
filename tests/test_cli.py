"""Commands: `key=value` by the signature of a function, help, and one line where the input is invalid."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from helpers.errors import user_error

from sn6.cli import help_text, parse_overrides, run_command


def command(
    root: Annotated[Path, "folder to read"],
    sizes: Annotated[list[int], "pixels"] = (1, 2),
    mode: Annotated[Literal["fast", "exact"] | None, "accuracy"] = None,
    tile: Annotated[str | list[str] | None, "number or several"] = None,
    scales: Annotated[tuple[float, ...], "factors"] = (1.0,),
    overwrite: bool = False,
) -> None:
    """Do a thing.

    Raises:
        UserError: never
    """
    print(root, sizes, mode, tile, scales, overwrite)


def parse(*overrides):
    return parse_overrides(command, "sn6.thing", ["root=x", *overrides])


def test_values_get_the_types_of_the_signature():
    given = parse_overrides(command, "sn6.thing", ["root=a b/c", "sizes=[3, 4]", "mode=exact", "overwrite=true"])
    assert given == {"root": Path("a b/c"), "sizes": [3, 4], "mode": "exact", "overwrite": True}
    assert parse("mode=null")["mode"] is None
    assert parse("scales=[1,1.25]")["scales"] == (1.0, 1.25)


@pytest.mark.parametrize("text", ["2027-01-05", "on", "1999", "null", "~", "a=b", "1e3", "0x10", "yes", "{a: 1}"])
def test_a_path_stays_text(text):
    given = parse_overrides(command, "sn6.thing", [f"root={text}"])
    assert given["root"] == Path(text).expanduser()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0044", "0044"),
        ("on", "on"),
        ("[0044,2027-01-05]", ["0044", "2027-01-05"]),
        ("null", None),
        ("1_0", "1_0"),
        ("[*_south*, a]", ["*_south*", "a"]),
    ],
)
def test_a_text_stays_text_in_a_list_too(text, value):
    assert parse(f"tile={text}")["tile"] == value


def test_a_path_begins_in_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    assert parse_overrides(command, "sn6.thing", ["root=~/x"])["root"] == Path("/somebody/x")


@pytest.mark.parametrize(
    ("overrides", "kind", "key"),
    [
        (["root"], "invalid_value", "None"),
        (["root=a", "root=b"], "conflict", "root"),
        ([], "missing_value", "root"),
        (["root=a", "size=3"], "unknown_key", "size"),
        (["rot=a"], "unknown_key", "rot"),
        (["root=a", "sizes=[x]"], "invalid_value", "sizes"),
        (["root=a", "sizes=3.5"], "invalid_value", "sizes"),
        (["root=a", "mode=slow"], "invalid_value", "mode"),
        (["root=a", "overwrite=perhaps"], "invalid_value", "overwrite"),
    ],
)
def test_an_invalid_override(overrides, kind, key):
    with user_error(kind) as caught:
        parse_overrides(command, "sn6.thing", overrides)
    assert str(caught.value.key) == key


def test_a_misspelled_key_is_answered_with_the_nearest():
    with user_error("unknown_key", "size") as caught:
        parse("size=3")
    assert "'sizes'?" in str(caught.value)


def test_help_has_every_key_with_its_default_and_meaning():
    lines = help_text(command, "sn6.thing").splitlines()
    assert "Do a thing." in lines
    assert any("root=(required)" in line and "folder to read" in line for line in lines)
    assert any("mode=null" in line and "accuracy" in line for line in lines)
    assert any("sizes=[1,2]" in line for line in lines)
    assert not any("Raises" in line or "UserError" in line for line in lines)


def test_a_command_ends_with_status_one_and_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sn6.thing", "sizes=3"])
    with pytest.raises(SystemExit) as stop:
        run_command(command, "sn6.thing")
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("module", ["sn6", "sn6.run", "sn6.simulate"])
def test_a_command_ends_silently_when_its_output_is_closed(module):
    """As `| head -1` leaves it; 141 is what a shell reports of a program that SIGPIPE ended."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", module, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_broken_pipe_of_something_else_is_reported(monkeypatch):
    def fail() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys, "argv", ["sn6.thing"])
    with open(os.devnull, "w") as stdout:  # pytest's own stdout has no file that could be asked
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError):
            run_command(fail, "sn6.thing")
