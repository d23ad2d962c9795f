"""What the comments of conf/ declare of each key: its type, and what it means.

The comment of a key is behind its value and on the indented comment lines below it:
`crop: 512   # int, pixels: side of a training crop`. What is before the first colon is the type, with a unit.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from sn6.config.composition import CONF

TEXT_TYPES = ("str", "path", "URL")
TYPE = re.compile(r"(str|path|URL|int|float|bool|list of \w+|dict)\b")
PACKAGE = re.compile(r"^# @package (\w+)", re.MULTILINE)
MIN_COLUMN = 20  # of the further lines of a comment
COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")


class Declared(NamedTuple):
    """What a comment says of a key.

    Attributes:
        type: its first word, empty where the comment does not begin with a type
        text: the whole comment
    """

    type: str
    text: str


@cache
def declared_keys() -> dict[str, Declared]:
    """Return key → comment, such as `data.crop`, over all files of conf/; the first file that has a comment wins."""
    found: dict[str, Declared] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        group = path.parent.relative_to(CONF).as_posix()
        package = PACKAGE.search(text)
        group = package[1] if package else group
        prefix = "" if group in (".", "_global_") else f"{group}."
        for key, comment in commented_keys(text):
            if comment:
                match = TYPE.match(comment)
                found.setdefault(prefix + key, Declared(match[1] if match else "", comment))
    return found


def is_text(key: str) -> bool:
    """Return whether conf/ declares a key as text or path."""
    return key in declared_keys() and declared_keys()[key].type in TEXT_TYPES


def commented_keys(text: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a YAML file, nested ones with dots, and its comment, empty where there is none."""
    lines = text.splitlines()

    def walk(node: yaml.Node, prefix: str) -> Iterator[tuple[str, str]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for name, value in node.value:
            is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
            end = name.end_mark if is_block else value.end_mark
            yield prefix + name.value, comment_at(lines, end.line, end.column)
            if is_block:
                yield from walk(value, f"{prefix}{name.value}.")

    root = yaml.compose(text, yaml.SafeLoader)
    if root is not None:
        yield from walk(root, "")


def comment_at(lines: list[str], line: int, column: int) -> str:
    """Return the comment behind a value, with the indented comment lines below it."""
    match = COMMENT.search(lines[line], column) if line < len(lines) else None
    parts = [match[1]] if match else []
    for following in lines[line + 1 :]:
        stripped = following.lstrip()
        if not stripped.startswith("#") or len(following) - len(stripped) < MIN_COLUMN:
            break
        parts.append(stripped.lstrip("# "))
    return " ".join(part.strip() for part in parts)


def described(path: Path) -> str:
    """Return the first sentence of the comment at the top of a file of conf/, without a command in it."""
    lines = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    text = " ".join(line for line in lines if not line.startswith("@package"))
    return text.partition(". ")[0].partition(": python ")[0].rstrip(".:")
