"""Overrides as users type them, made readable for Hydra where conf/ declares the key as text or path."""

import os
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from sn6.config.comments import declared_keys, is_text
from sn6.config.composition import SEARCH_PATH, quote
from sn6.errors import UserError

OVERRIDE = re.compile(r"(?P<key>\+{0,2}[\w.]+)=(?P<value>.*)", re.DOTALL)
SWEEP = re.compile(r",|^(choice|range|interval|glob|shuffle|sort|tag|extend_list)\(")


def check_flags(arguments: Sequence[str]) -> None:
    """Raise a UserError for a flag that Hydra does not know, such as `--name=first`."""
    _, others = get_args_parser().parse_known_args(list(arguments))
    for flag in (one for one in others if one.startswith("-")):
        key = flag.lstrip("-").partition("=")[0]
        raise UserError(
            f"unknown flag {flag!r}; keys have no dashes, {key}=VALUE; see --help", kind="unknown_key", key=flag
        )


def absolute_config_folders(arguments: Sequence[str]) -> list[str]:
    """Give the user's own folders of config files by absolute paths in one `hydra.searchpath=[...]`.

    `--config-dir DIR` becomes a part of it: unlike the flag, an override reaches the jobs of a sweep, which are
    processes of their own.

    Args:
        arguments: of the command line, flags included

    Raises:
        UserError: a folder does not exist
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    flags, rest = parser.parse_known_args(list(arguments))
    given = [argument.removeprefix(SEARCH_PATH).strip("[]") for argument in rest if argument.startswith(SEARCH_PATH)]
    texts = [text.strip().strip("'\"") for one in given for text in one.split(",") if text.strip()]
    folders = [*([flags.config_dir] if flags.config_dir is not None else []), *texts]
    if not folders:
        return list(arguments)
    paths = []
    for folder in folders:
        if folder.startswith("pkg://"):
            paths.append(folder)
            continue
        path = Path(folder.removeprefix("file://")).expanduser().absolute()
        if not path.is_dir():
            raise UserError(
                f"the folder {folder} of your own config files does not exist; give one that contains model/, loss/ or "
                "other groups",
                kind="not_found",
                key="--config-dir",
                value=folder,
            )
        paths.append(f"file://{path}")
    others = [argument for argument in rest if not argument.startswith(SEARCH_PATH)]
    return [*others, f"{SEARCH_PATH}[{','.join(map(quote, paths))}]"]


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
