"""Random overrides of the config: values outside of the type and range of each key, and what a run makes of them."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from sn6.cli import has_signature
from sn6.config.composition import CONF, compose_values, composing, quote, to_plain
from sn6.config.composition_errors import one_line_config_errors
from sn6.config.overrides import key_of, quote_texts
from sn6.config.targets import import_target
from sn6.data.datamodule import per_device_batch_size
from sn6.errors import UserError
from sn6.training.config_check import check_types
from sn6.training.external_launcher import check_world_size
from sn6.training.quiet import lightning_errors, quiet_libraries
from sn6.training.resolved_config import resolve
from sn6.training.stage import make_modules, make_trainer
from sn6.training.stages import stage_configs

TINY = (
    *("model.width=4", "model.pretrained=null", "data.crop=64", "data.batch_size=2", "data.num_workers=0"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=1", "trainer.limit_train_batches=1"),
    *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.log_every_n_steps=1"),
    *("callbacks.image_logging.tiles=0", "callbacks.polygon_f1.curve=[]", "+trainer.enable_progress_bar=false"),
    "~callbacks.progress_bar",
)
ALL_GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
GROUPS = [name for name in ALL_GROUPS if name not in ("callbacks", "sweep", "cluster")]
WORDS = (
    *("0", "-1", "1", "2", "-0.0", "0.5", "1.5", "-1e-9", "1e-300", "1e308", "-1e308", "9999999999999999999999"),
    *("2147483648", "{_target_: os.getcwd}"),
    *("1e999", "nan", ".nan", "-.inf", "inf", "true", "false", "null", "''", '""', "[]", "{}", "[null]", "[[]]", "[0]"),
    *("[-1]", "[1,1]", "[1,2,3,4]", "[1,2,3]", "[.nan]", "[1e308]", "[a,b]", "{a: 1}", "{a: {b: []}}"),
    *("wrong", "../above", "/", ".", "~", "a b", "'\\n'", "'\\x00'", "é", "建物", "'\u202e'", "'\\u0007'", "???"),
    *("'${nothing}'", "${seed}", "${model}", "'${'", "1_000", "0x10", "2026-01-01", "1:30", "yes", "no", "auto", "-"),
    *("1,2", "a=b", "[1", "{", "'", "choice(1,2)", "0.1.2", "1e", "%", "@", "=", "\\", "*", "?"),
)  # fmt: skip


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every node of a config, inner ones included."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        yield prefix + name
        yield from keys_of(value, f"{prefix}{name}.")


def further_arguments(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield an override without value for each argument of a node's class that the node does not have."""
    if not isinstance(node, Mapping):
        return
    if "_target_" in node and has_signature(target := import_target(node["_target_"], prefix)):
        parameters = inspect.signature(target).parameters
        yield from (f"+{prefix}{name}" for name in parameters if name not in node and name not in ("args", "kwargs"))
    for name, value in node.items():
        yield from further_arguments(value, f"{prefix}{name}.")


def near_values(value: Any) -> list[str]:
    """Return values around the one of the config: other signs, sizes and types."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [str(value), f"[{value}]"] if isinstance(value, str) and value.isalnum() else []
    return [str(one) for one in (-value, value + 1, value - 1, value * 10, value * 10**6, value / 3, f"'{value}'")]


def texts() -> st.SearchStrategy[str]:
    """Draw any text, quoted as Hydra needs it."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(quote)


def numbers() -> st.SearchStrategy[str]:
    """Draw a number as text."""
    return st.one_of(st.integers(), st.integers(-3, 300), st.floats()).map(str)


class Recipe:
    """A config that is composed once, to which overrides are applied as Hydra does it.

    Args:
        overrides: of the recipe
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = [*overrides]
        with composing() as more:
            self.base = compose("config", [*more, *overrides, "name=it", "folder=outputs/it"])
        self.values = to_plain(self.base)
        self.keys = [key for key in keys_of(self.values) if key not in ("name", "folder", "run_folder")] + ["name"]
        self.further = sorted(set(further_arguments(self.values)))

    def draws(self) -> st.SearchStrategy[list[str]]:
        """Draw one to two overrides."""
        return st.lists(self.override(), min_size=1, max_size=2)

    def override(self) -> st.SearchStrategy[str]:
        """Draw a key and a value of it, an argument that its file does not list, or a removal."""
        values = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), numbers(), texts())

        def of_key(key: str) -> st.SearchStrategy[str]:
            near = near_values(OmegaConf.select(self.base, key))
            return st.one_of(values, values, st.sampled_from(near or WORDS)).map(lambda value: f"{key}={value}")

        key = st.sampled_from(self.keys)
        return st.one_of(
            *[key.flatmap(of_key)] * 6,
            *[st.sampled_from(self.further).flatmap(lambda name: values.map(lambda value: f"{name}={value}"))] * 2,
            key.map(lambda name: f"~{name}"),
        )

    def compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the config with these overrides, as `sn6.run` has it."""
        if any(key_of(override).partition("@")[0] in ALL_GROUPS for override in overrides):
            return self.compose_anew(overrides)
        config: DictConfig = deepcopy(self.base)
        parsed = OverridesParser.create().parse_overrides(overrides=quote_texts(overrides))
        OmegaConf.set_struct(config, True)
        ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
        return to_plain(config)

    def compose_anew(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the config of overrides that choose groups, which takes longer."""
        with composing() as more:
            return compose_values([*more, *self.overrides, *quote_texts(overrides)], name="it", folder="outputs/it")


def group_overrides() -> st.SearchStrategy[list[str]]:
    """Draw a choice of a config group, null, or one that does not exist, or its removal."""

    def of_group(group: str) -> st.SearchStrategy[str]:
        choices = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        value = st.one_of(st.sampled_from(choices), st.sampled_from(["null", "", "nothing", "[]", "1", "é"]))
        return st.one_of(value.map(lambda name: f"{group}={name}"), st.just(f"~{group}"))

    return st.lists(st.sampled_from(GROUPS).flatmap(of_group), min_size=1, max_size=2)


def refusal(recipe: "Recipe", overrides: Sequence[str], folder: Path) -> str | None:
    """Compose and make a run, but for its files; return its error, None if it is accepted.

    Args:
        recipe: what the overrides are applied to
        overrides: of the command line
        folder: the working folder, which stays empty
    """
    message = None
    try:
        with one_line_config_errors(overrides):
            build(recipe.compose(overrides), overrides)
    except UserError as error:
        message = str(error)
        assert message.isprintable(), (overrides, message)
        assert "Traceback" not in message, (overrides, message)
    assert {path.name for path in folder.iterdir()} <= {".sn6"}, overrides  # the cache of data.cache=.
    return message


def build(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Make everything of a run but its files, as `sn6.run` does.

    Raises:
        UserError: as of a run
    """
    check_types(values)
    if values["stages"]:
        stage_configs(values, overrides)
        return
    config = resolve(values)
    with quiet_libraries(), lightning_errors():
        _, datamodule = make_modules(config, resumes=False)
        trainer = make_trainer(config, batch_norm=False)
        check_world_size(trainer.world_size)
        per_device_batch_size(datamodule.batch_size, trainer.world_size)
