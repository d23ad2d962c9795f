"""What sn6 says to users, collected from its source: the messages of its errors, and the help of its commands.

`python tests/helpers/wording.py` writes it to tests/golden/wording.txt, which a test compares and people read.
"""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "wording.txt"
COMMANDS = ("predict", "export", "score", "show", "simulate", "download", "check", "compare")
ERRORS = {"UserError": 0, "Fault": 2}  # class → position of the message among its arguments


class Message(NamedTuple):
    """The message of an error.

    Attributes:
        file: that raises it
        kind: of the error, empty where none is given
        text: with the expressions of its values in braces
    """

    file: str
    kind: str
    text: str


def messages() -> Iterator[Message]:
    """Yield the messages of all errors in the order of the files."""
    for path in sorted((ROOT / "sn6").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call, function in calls(tree, None):
            position = ERRORS[call.func.id]
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            kind = call.args[0] if call.func.id == "Fault" and call.args else given.get("kind")
            text = call.args[position] if len(call.args) > position else given.get("message")
            if text is not None:
                texts = assigned(text.id, call, function) if isinstance(text, ast.Name) else [text]
                for one in texts or [text]:
                    file = path.relative_to(ROOT).as_posix()
                    yield Message(file, "" if kind is None else render(kind), render(one))


def calls(node: ast.AST, function: ast.AST | None) -> Iterator[tuple[ast.Call, ast.AST | None]]:
    """Yield each call that makes an error, in the order of the lines, and the function that it is in."""
    if isinstance(node, ast.FunctionDef):
        function = node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
        yield node, function
    for child in ast.iter_child_nodes(node):
        yield from calls(child, function)


def assigned(name: str, call: ast.Call, function: ast.AST | None) -> list[ast.expr]:
    """Return what a variable of a function holds at a call: its last assignment before that line."""
    found = [
        node
        for node in ast.walk(function or ast.Module([], []))
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        and node.lineno < call.lineno
    ]
    return [max(found, key=lambda node: node.lineno).value] if found else []


def render(node: ast.expr) -> str:
    """Return a string literal as its text, an f-string with its expressions in braces, others as their source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            "{" + ast.unparse(part.value) + "}" if isinstance(part, ast.FormattedValue) else render(part)
            for part in node.values
        )
    return "{" + ast.unparse(node) + "}"


def wording() -> str:
    """Return all messages and helps as one text."""
    from sn6.__main__ import HELP
    from sn6.cli import help_text
    from sn6.config.help import help_text as run_help

    parts, file = ["# Messages: kind and text, by the file that raises them"], ""
    for message in messages():
        if message.file != file:
            file = message.file
            parts += ["", f"## {file}"]
        parts.append(f"[{message.kind}] {message.text}")
    parts += ["", "# Help", "", "## sn6 --help", HELP]
    for name in COMMANDS:
        parts += ["", f"## sn6 {name} --help", help_text(getattr(import_module(f"sn6.{name}"), name), f"sn6.{name}")]
    parts += ["", "## sn6 run --help", run_help([])]
    return "\n".join(line.rstrip() for line in "\n".join(parts).splitlines()) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(wording(), encoding="utf-8")
