"""docs/extending.md: its files and commands, exactly as they are printed, in a folder outside of the package."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.forked import python_m
from helpers.towns import write_town

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs/extending.md").read_text(encoding="utf-8"))
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
# To make the runs short; everything else is as in the document.
SHORT = (
    *("data.crop=64", "data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=1"),
    *("trainer.limit_train_batches=2", "trainer.accelerator=cpu", "trainer.precision=32-true"),
    "callbacks.image_logging.tiles=0",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, archive_root):
    """The files of the document, and the archive and the harbour that its commands name."""
    folder = tmp_path_factory.mktemp("extending")
    (folder / "archive").symlink_to(archive_root)
    write_town(folder / "harbour", bands=2)
    for kind, text in BLOCKS:
        name = re.match(r"# (\S+)\n", text)
        if kind in ("python", "yaml") and name:
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_document(folder, line):
    """In the order of the document: a prediction needs the run before it."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    short = SHORT if words[2] == "sn6.run" else ("device=cpu",)
    done = python_m([*words[2:], *short], folder)
    assert done.status == 0, done.err
    if name := next((word.removeprefix("name=") for word in words if word.startswith("name=")), None):
        assert list((folder / "outputs" / name).rglob("metrics.json"))


def test_each_example_is_short():
    for kind, text in BLOCKS:
        assert len([line for line in text.splitlines() if line.strip()]) <= 16, kind
