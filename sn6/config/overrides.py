"""Overrides as users type them, made readable for Hydra where conf/ declares the key as text or path."""

import os
import re
from collections.abc import Sequence

from sn6.config.comments import declared_keys, is_text
from sn6.config.composition import quote

OVERRIDE = re.compile(r"(?P<key>\+{0,2}[\w.]+)=(?P<value>.*)", re.DOTALL)
SWEEP = re.compile(r",|^(choice|range|interval|glob|shuffle|sort|tag|extend_list)\(")


def quote_texts(arguments: Sequence[str]) -> list[str]:
    """Quote the values of text and path keys, which Hydra's grammar may not read or may take for a number or a list.

    `name=1999` stays a name, and paths and addresses may hold `=`, `>`, `~`, `?`, `&` and blanks. In a sweep (-m) a
    value with a comma, or a function such as choice(...), stands for several values and stays as it is.

    Args:
        arguments: of the command line, flags included
    """
    is_sweep = bool({"-m", "--multirun"} & set(arguments))
    return [quote_text(argument, is_sweep) for argument in arguments]


def quote_text(argument: str, is_sweep: bool = False) -> str:
    """Quote the value of one override, see `quote_texts`; let a dict have further names."""
    match = OVERRIDE.fullmatch(argument)
    if not match:
        return argument
    key, value = match["key"], match["value"]
    if key in declared_keys() and declared_keys()[key].type == "dict" and value.startswith("{"):
        return f"++{argument}"  # else Hydra refuses names that an experiment does not give, such as simulation.tiles
    if not is_text(key.lstrip("+")):
        return argument
    is_quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    if value in ("", "null") or is_quoted or (is_sweep and SWEEP.search(value)):
        return argument
    if declared_keys()[key.lstrip("+")].type == "path":
        value = os.path.expanduser(value)
    return f"{key}={quote(value)}"


def key_of(override: str) -> str:
    """Return the key of an override, without signs: `+trainer.x=1` → `trainer.x`."""
    return override.lstrip("+~").partition("=")[0]
