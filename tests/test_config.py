"""conf/: what its comments declare, how overrides are read, and the help that shows both."""

import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from helpers.commands import assert_fails
from helpers.errors import user_error
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object

import sn6
from sn6.checkpoints.init_options import InitOptions
from sn6.cli import type_hints
from sn6.config.comments import TEXT_TYPES, commented_keys, declared_keys
from sn6.config.composition import CONF, VERSION_BASE, job_folder
from sn6.config.composition_errors import one_line_config_errors
from sn6.config.help import help_text
from sn6.config.overrides import quote_text, quote_texts
from sn6.config.types import RunOptions

TEXTS = [
    "1999",
    "2027-01-05",
    "on",
    "a=b",
    "a b",
    "height > 2",
    "loss=bce,seed=0",
    "x~y",
    "http://h/p?x=1&y=2",
    "it's",
    'a "quoted" word',
    "[a",
    "{b}",
    "(1), c",
    "back\\slash",
    "über",
    "#5",
    "a:b",
]


def value_of(override):
    """What Hydra makes of an override."""
    return OverridesParser.create().parse_override(override).value()


def compose_config(overrides):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return compose("config", overrides=overrides)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["name", "data.root", "callbacks.sar_handoff.weights", "+data.root"])
def test_values_of_text_keys_stay_text(key, text):
    (override,) = quote_texts([f"{key}={text}"])
    value = value_of(override)
    assert isinstance(value, str) or hasattr(value, "text")
    assert str(getattr(value, "text", value)) == text


def test_values_of_other_keys_null_and_quoted_values_stay_as_they_are():
    given = ["data.crop=256", "model=unet", "~callbacks.progress_bar", "data.root=null", "name='a b'", "--cfg", "job"]
    assert quote_texts(given) == given
    once = quote_texts(["name=a=b"])
    assert quote_texts(once) == once  # a job and Lightning's other ranks read the command line again


@pytest.mark.parametrize("value", ["a,b", "choice(a,b)"])
def test_in_a_sweep_a_text_key_may_have_several_values(value):
    assert quote_texts(["-m", f"model.weights={value}"]) == ["-m", f"model.weights={value}"]
    assert quote_texts([f"model.weights={value}"]) == [f"model.weights='{value}'"]
    assert quote_texts(["--multirun", "name=2026"])[1] == "name='2026'"


def test_a_dict_may_have_names_that_an_experiment_does_not_give():
    overrides = ["experiment=quickstart", "simulation={scale: tiny, tiles: 24}", "stages={more: ['data=sar']}"]
    values = compose_config(quote_texts(overrides))
    assert values["simulation"] == {"scale": "tiny", "tiles": 24, "seed": 3}
    assert list(values["stages"]) == ["eo", "sar", "more"]


def test_a_misspelled_node_is_answered_with_those_beside_it():
    overrides = ["callbacks.polygon_f.curve=[0.5]"]
    with user_error("unknown_key", "callbacks.polygon_f.curve") as caught, one_line_config_errors(overrides):
        compose_config(overrides)
    assert "callbacks.polygon_f1" in str(caught.value)


def test_a_path_begins_in_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    assert quote_text("data.root=~/tiles") == "data.root='/somebody/tiles'"
    assert quote_text("name=~/tiles") == "name='~/tiles'"  # text, not a path


# --- the comments agree with the signatures


def nodes(node, where):
    """Each node with a `_target_` of a config file, and its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield where, node
        for key, value in node.items():
            yield from nodes(value, f"{where}.{key}" if where else key)


def is_text(hint: Any) -> bool:
    """Whether a type is text or a path, or null."""
    if get_origin(hint) is Annotated:
        return is_text(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return bool(parts) and all(map(is_text, parts))
    return hint in (str, Path)


def declared_types():
    """The hint of each key of conf/ that one of our own signatures declares."""
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix().removesuffix("/data")  # callbacks/data is part of callbacks
        if group in (".", "experiment", "scale", "scale/model", "sweep", "cluster"):
            continue
        for where, node in nodes(yaml.safe_load(path.read_text()) or {}, group):
            if not node["_target_"].startswith("sn6."):
                continue
            hints = type_hints(get_object(node["_target_"]))
            hints |= type_hints(InitOptions) if group == "model" else {}
            for key in node:
                if key in hints:
                    yield f"{where}.{key}", hints[key]
    yield from type_hints(RunOptions).items()


@pytest.mark.parametrize(("key", "hint"), sorted(dict(declared_types()).items(), key=lambda item: item[0]))
def test_a_key_is_text_in_its_comment_where_it_is_text_in_the_signature(key, hint):
    comment = declared_keys().get(key)
    fixed = key == "data.product"  # names of products need no quoting
    assert is_text(hint) == (comment is not None and comment.type in TEXT_TYPES) or fixed


def test_every_key_of_a_group_has_a_comment():
    silent = []
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix().removesuffix("/data")  # callbacks/data is part of callbacks
        if group in (".", "experiment", "scale", "scale/model", "sweep", "cluster"):
            continue
        for key, comment in commented_keys(path.read_text()):
            leaf = key.rpartition(".")[2]
            if not comment and not leaf.startswith("_") and leaf not in ("defaults", "seed"):
                silent.append(f"{group}.{key}")
    nodes_without = {"callbacks.image_logging", "callbacks.throughput", "callbacks.learning_rate"}
    known = nodes_without | {"callbacks.polygon_f1", "callbacks.progress_bar", "callbacks.sar_handoff"}
    known |= {"callbacks.eo_pretraining", "logger.wandb", "logger.tensorboard"}
    assert {key for key in silent if key not in declared_keys()} <= known


def test_comments_of_several_lines_and_of_block_values():
    lines = [
        "a: 1   # int: one",
        "b:     # of the node",
        "  c: [1, 2]   # list of int: first,",
        f"{'':25}# second",
        "d: x",
    ]
    comments = {"a": "int: one", "b": "of the node", "b.c": "list of int: first, second", "d": ""}
    assert dict(commented_keys("\n".join(lines))) == comments


# --- help


def test_help_shows_the_comments_of_the_chosen_groups():
    text = help_text(["model=unet", "data.crop=64"])
    lines = {match[1]: match[0] for match in re.finditer(r"^ *(\w+):.*$", text, re.MULTILINE)}
    assert declared_keys()["data.root"].text in lines["root"]
    assert re.match(r" *crop: 64 ", lines["crop"])
    unet = dict(commented_keys((CONF / "model/unet.yaml").read_text()))
    assert unet["depth"] in lines["depth"]
    assert unet["dropout"] in lines["dropout"]
    for folder in CONF.iterdir():
        if folder.is_dir():
            assert all(path.stem in text for path in folder.glob("*.yaml"))


def test_help_of_an_unknown_group(sn6_run):
    done = sn6_run("model=unett", "--help")
    assert (done.status, done.error.kind, done.error.key, done.error.value) == (1, "unknown_value", "model", "unett")


# --- names of folders


def test_folders_of_jobs_need_no_quotes_in_a_shell():
    assert job_folder("loss-bce_seed-0") == "loss-bce_seed-0"
    one, other = job_folder("model.weights-'a/b'"), job_folder("model.weights-'a b'")
    assert one != other
    for name in (one, other, job_folder("data.bands-[1,2]")):
        assert re.fullmatch(r"[A-Za-z0-9_.+-]+", name)


# --- the console script


def test_commands_of_the_console_script(tmp_path):
    from sn6.__main__ import COMMANDS

    folder = Path(sn6.__file__).parent
    runnable = {path.stem for path in folder.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert set(COMMANDS) == runnable - {"__main__", "statistics"}
    done = subprocess.run([sys.executable, "-m", "sn6", "score", "--help"], capture_output=True, text=True, check=True)
    assert "usage: python -m sn6.score" in done.stdout
    unknown = subprocess.run([sys.executable, "-m", "sn6", "scor"], capture_output=True, text=True)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)


def test_the_version():
    from sn6 import __version__

    for module in ("sn6", "sn6.run", "sn6.score"):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"sn6 {__version__}\n"


def test_an_override_that_hydra_cannot_read(sn6_run):
    done = sn6_run("data.crop=[1")
    assert (done.error.kind, done.error.key) == ("invalid_value", "data.crop")


def test_flags_that_exclude_one_another(sn6_run):
    assert_fails(sn6_run("--cfg", "job", "-m"), "conflict")


def test_a_value_without_a_key(sn6_run):
    assert_fails(sn6_run("=3"), "unknown_value")


def test_user_error_helper_sees_another_kind():
    """The helper that all tests of errors use fails where it should."""
    from sn6.errors import UserError

    with pytest.raises(AssertionError), user_error("not_found", "a"):
        raise UserError("message", kind="conflict", key="a")
    with pytest.raises(AssertionError), user_error("conflict", "b"):
        raise UserError("message", kind="conflict", key="a")
