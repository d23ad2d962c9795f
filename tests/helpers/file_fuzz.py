"""Broken files: random changes of their bytes and of what they contain, and commands that read them."""

import io
import json
import os
import random
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from sn6.errors import UserError

SECONDS, GIGABYTES = 10, 4  # that a file may take
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TOKENS = (
    *(b"0", b"-1", b"1e308", b"-1e999", b"NaN", b"Infinity", b"99999999999999999999", b"9" * 5000, b"null", b'""'),
    *(b"[]", b"{}"),
    *(b"\x00", b"\xff\xfe", b"\r\n", b'"', b",", b";", b"\n", b"(", b")", b"((((((((", b"[" * 3000, b"{", b"}"),
    *(b"POLYGON EMPTY", b"GEOMETRYCOLLECTION(" * 3000, b"\xe2\x80\xae", b"#", b"!!python/object:os.system"),
    *(b"&a *a", b"---"),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *(None, 0, -1, 1.5, 10**400, 1e308, float("nan"), float("inf"), True, "", "text", "\x00\n", "建物", [], {}, [[]]),
    *([None], {"": None}, [1, 2, 3], {"_target_": "os.getcwd"}, "sn6.losses.BCE", [1e308], "../..", 2**31),
)  # fmt: skip
OK, REFUSED, STARTED = "ok", "refused", "started"
Edit = tuple[str, float, float, int]  # operation, two places from 0 to 1, number of a token or value
OPERATIONS = ("flip", "cut", "delete", "insert", "duplicate", "swap", "number", "random", "value", "value", "remove")


def edits() -> st.SearchStrategy[list[Edit]]:
    """Draw one to three changes of a file, at places that are equally likely."""
    return st.integers(0, 2**64 - 1).map(drawn_edits)


def drawn_edits(seed: int) -> list[Edit]:
    """Return the changes of a seed."""
    generator = random.Random(seed)
    number = generator.choice((1, 1, 1, 2, 3))
    return [
        (generator.choice(OPERATIONS), generator.random(), generator.random(), generator.randrange(256))
        for _ in range(number)
    ]


def nodes_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each node in nested dicts and lists, but for the root; of long lists the first three."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from nodes_of(value, (*path, key))


def change_tree(tree: Any, edit: Edit) -> Any:
    """Return nested dicts and lists with another value at a node, or without it."""
    operation, place, _, number = edit
    tree, paths = deepcopy(tree), list(nodes_of(tree))
    if not paths:
        return VALUES[number % len(VALUES)]
    *parents, last = paths[int(place * len(paths))]
    node = tree
    for key in parents:
        node = node[key]
    if operation == "remove":
        del node[last]
    else:
        node[last] = VALUES[number % len(VALUES)]
    return tree


def change_bytes(data: bytes, edit: Edit) -> bytes:
    """Return the bytes of a file with one change."""
    operation, place, other, number = edit
    first, second = sorted((int(place * len(data)), int(other * len(data))))
    token = TOKENS[number % len(TOKENS)]
    if operation == "flip" and data:
        return data[:first] + bytes([data[first] ^ 1 << number % 8]) + data[first + 1 :]
    if operation == "cut":
        return data[:first]
    if operation == "delete":
        return data[:first] + data[min(second, first + 4 * number) :]
    if operation == "duplicate":
        return data[:second] + data[first : first + 1000] + data[second:]
    if operation == "swap":
        separator = b"\n" if number % 2 else b","
        fields = data.split(separator)
        one, two = int(place * len(fields)), int(other * len(fields))
        fields[one], fields[two] = fields[two], fields[one]
        return separator.join(fields)
    if operation == "number" and (found := list(NUMBER.finditer(data))):
        match = found[int(place * len(found))]
        return data[: match.start()] + token + data[match.end() :]
    if operation == "random":
        return bytes((number * (index + 1) ** 2 + int(place * 251)) % 256 for index in range(int(other * 300)))
    return data[:first] + token + data[first:]


def change_text_tree(path: Path, edit: Edit) -> None:
    """Change a node of a JSON or YAML file."""
    load, dump = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    try:
        tree = load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError):
        return
    path.write_text(dump(change_tree(tree, edit)), encoding="utf-8")


def change_weights(path: Path, edit: Edit) -> None:
    """Change a node of the metadata of a weights.safetensors, whose digest is that of the changed ones."""
    from sn6.checkpoints.weights_file import read_weights, write_weights

    weights, metadata = read_weights(path)
    metadata = change_tree(metadata, edit)
    write_weights(path, weights, metadata)


def change_checkpoint(path: Path, edit: Edit) -> None:
    """Change a node of a checkpoint, whose checksums are those of the changed one."""
    import torch

    torch.save(change_tree(torch.load(path, weights_only=True), edit), path)


OF_SUFFIX: dict[str, Callable[[Path, Edit], None]] = {
    ".json": change_text_tree,
    ".geojson": change_text_tree,
    ".yaml": change_text_tree,
    ".safetensors": change_weights,
    ".ckpt": change_checkpoint,
}


def change_file(path: Path, changes: Sequence[Edit]) -> None:
    """Make all changes of what a file contains, then those of its bytes."""
    inner = [edit for edit in changes if edit[0] in ("value", "remove") and path.suffix in OF_SUFFIX]
    for edit in inner:
        OF_SUFFIX[path.suffix](path, edit)
    data = path.read_bytes()
    for edit in changes:
        data = data if edit in inner else change_bytes(data, edit)
    path.write_bytes(data)


@contextmanager
def changed(path: Path, changes: Sequence[Edit]) -> Iterator[None]:
    """Hold a file changed during the block."""
    data = path.read_bytes()
    try:
        change_file(path, changes)
        yield
    finally:
        path.write_bytes(data)


def call(function: Callable[[], Any]) -> str:
    """Call a command; return OK, REFUSED for a UserError of one line, else what is wrong with how it ended."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            function()
        except UserError as error:
            message = str(error)
            return REFUSED if message.isprintable() and "Traceback" not in message else message
        except Exception:
            return traceback.format_exc()
    return OK


def try_files(
    inputs: Sequence[tuple[Path, Sequence[Edit], str]], make: Callable[[str], Callable[[], Any]], log: Path, folder: str
) -> None:
    """Change files one after another and call a command on each, in a process of its own that they may crash.

    Args:
        inputs: file, changes, and name of the command
        make: gives the command by its name
        log: gets a line of JSON before and after each
        folder: to work in
    """
    os.chdir(folder)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, in C code too
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + GIGABYTES * 10**9, resource.RLIM_INFINITY))
    with log.open("w", buffering=1) as file:
        for number, (path, changes, name) in enumerate(inputs):
            file.write(json.dumps([number, STARTED]) + "\n")
            with changed(path, changes):
                signal.alarm(SECONDS)
                fault = call(make(name))
                signal.alarm(0)
            file.write(json.dumps([number, fault]) + "\n")
