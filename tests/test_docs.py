"""README, docs/ and the files beside them: links lead somewhere, commands can be typed, versions agree."""

import importlib
import re
import shlex
import tomllib
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

import sn6
from sn6.cli import parse_overrides, with_fields_as_keys
from sn6.config.composition import CONF, VERSION_BASE, quote, to_plain
from sn6.config.overrides import quote_texts
from sn6.training.config_check import check_types

ROOT = Path(__file__).parents[1]
PAGES = (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md")))
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^\s*|`)(python -m (?:sn6|benchmarks)[^`\n]*)", re.MULTILINE)
# Those of docs/extending.md, and those with --config-dir, need its files: its own test runs them.
COMMANDS = sorted(
    {
        command
        for path, text in TEXTS.items()
        for command in COMMAND.findall(text)
        if path.name != "extending.md" and "--config-dir" not in command
    }
)


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def choices(override):
    """The override of each job of an override of a sweep: `loss=bce,focal_dice` → `loss=bce`, `loss=focal_dice`."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return [override]
    return [f"{override.partition('=')[0]}={value}" for value in parsed.sweep_string_iterator()]


def check_run(arguments):
    """Compose the config of a run, or of each job of a sweep, and check its keys and types."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    assert set(flags) <= {"-m"}
    overrides = [one for one in quote_texts(arguments) if one not in flags]
    more = [f"{key}={quote('somewhere')}" for key in ("folder", "run_folder")]
    more += [] if any(one.startswith("name=") for one in overrides) else ["name=one"]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        for job in product(*map(choices, overrides)) if flags else [overrides]:
            assert compose("config", list(job), return_hydra_config=True)
            own = [one for one in job if not one.startswith(("hydra.", "hydra/", "sweep=", "cluster="))]
            check_types(to_plain(compose("config", [*own, *more])))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_can_be_typed(command):
    module, *arguments = shlex.split(command, comments=True)[2:]
    if module.startswith("benchmarks"):
        assert find_spec(module)
        assert all(find_spec(f"benchmarks.{part}") for part in arguments)
    elif "--help" in arguments or not arguments:
        assert find_spec(module)
    elif module == "sn6.run":
        check_run(arguments)
    else:
        name = module.rpartition(".")[2]
        command = with_fields_as_keys(getattr(importlib.import_module(module), name))
        parse_overrides(command, module, arguments)


def test_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {one for text in TEXTS.values() for one in re.findall(r"'(?:\.|sn6)\[(\w+)\]'", text)}
    assert {"sweep", "slurm", "tensorboard", "bench", "dev"} <= named <= set(extras)


def test_the_version_is_the_newest_of_the_changelog():
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest
    assert newest[1] == sn6.__version__ == citation["version"]


def test_the_readme_is_one_page():
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 150
