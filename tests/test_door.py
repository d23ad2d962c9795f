"""The doors: `key=value` words by the signature of a function, help, and one line where they do not fit."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from sn6.cli import help_text, parse_overrides, run_command
from sn6.errors import UserError


def command(
    root: Annotated[Path, "where it lies"],
    sizes: Annotated[list[int], "in pixels"] = (1, 2),
    mode: Annotated[Literal["fast", "exact"] | None, "how"] = None,
) -> None:
    """Does a thing.

    Raises:
        UserError: never
    """
    print(root, sizes, mode)


def test_words_become_the_types_of_the_signature():
    given = parse_overrides(command, "sn6.thing", ["root=a b/c", "sizes=[3, 4]", "mode=exact"])
    assert given == {"root": Path("a b/c"), "sizes": [3, 4], "mode": "exact"}
    assert parse_overrides(command, "sn6.thing", ["root=x", "mode=null"])["mode"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["root"], "sn6.thing: 'root' is no key=value; the keys are root, sizes, mode"),
        (["root=a", "root=b"], "sn6.thing: root is given twice; give it once"),
        ([], "sn6.thing: root=... is missing; `python -m sn6.thing --help` tells what it is"),
        (["root=a", "size=3"], "sn6.thing: there is no 'size'; the keys are root, sizes, mode"),
        (["rot=a"], "sn6.thing: there is no 'rot'; the keys are root, sizes, mode"),
        (["root=a", "sizes=[x]"], "sn6.thing: sizes=['x'] does not do; input should be a valid integer"),
        (["root=a", "mode=slow"], "sn6.thing: mode='slow' does not do; input should be 'fast' or 'exact'"),
    ],
)
def test_words_that_do_not_fit_are_told_in_one_line(words, says):
    with pytest.raises(UserError) as error:
        parse_overrides(command, "sn6.thing", words)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_help_names_every_key_its_default_and_its_meaning():
    lines = help_text(command, "sn6.thing").splitlines()
    assert "Does a thing." in lines
    assert any("root=needed" in line and "where it lies" in line for line in lines)
    assert not any("Raises" in line or "UserError" in line for line in lines)
    assert any("mode=null" in line and "how" in line for line in lines)


def test_a_door_ends_with_status_one_and_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sn6.thing", "sizes=3"])
    with pytest.raises(SystemExit) as stop:
        run_command(command, "sn6.thing")
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
