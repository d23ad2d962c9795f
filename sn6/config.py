"""The config: where conf/ lies, and one line for what does not fit into it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
import hydra.utils
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, NonNegativeInt, PositiveInt

from sn6.cli import validate_arguments
from sn6.errors import UserError

PACKAGE = Path(__file__).resolve().parent
# in a wheel conf/ lies in the package, in a clone beside it
CONF = next((folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()), PACKAGE / "conf")
IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")
# Hydra 1.3 wants to be told whose defaults to follow, Hydra 1.4 warns of being told
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_HYDRA_1_3 else {}
# Hydra 1.4 asks which `_target_` may be made: any, as the command line is the user's own
TRUST: dict[str, Any] = (
    {} if IS_HYDRA_1_3 else {"execution_whitelist": vars(hydra.utils)["UNSAFE_DISABLE_EXECUTION_CHECKS"]}
)
Objective = Literal[  # of the keys of metrics.json those that tell how good a run was
    "val_f1", "val_precision", "val_recall", "val_iou", "val_loss", "f1", "precision", "recall", "iou", "loss"
]
Name = Annotated[str, Field(pattern=r"[^./\s]")]  # neither nothing nor a folder above


@dataclass(frozen=True)
class TopLevel:
    """The keys of conf/config.yaml outside the groups, for their types."""

    name: Name
    group: str
    folder: str
    run_folder: str
    resume: bool
    stages: dict[str, list[str]] | None
    seed: NonNegativeInt
    objective: Objective
    on_failed_job: Literal["continue", "stop"]
    window: PositiveInt | None
    window_overlap: NonNegativeInt
    compile: bool


def check(config: DictConfig) -> None:
    """Holds every value against the signature that it is meant for, before anything is made.

    Raises:
        UserError: an unknown key or another type, with the key
    """
    from sn6.checkpoints.init_options import INIT_KEYS, InitOptions  # torch, which `--help` does without

    values = to_plain(config)
    groups = [key for key, value in values.items() if isinstance(value, dict) and key != "stages"]
    validate_arguments(TopLevel, {k: v for k, v in values.items() if k not in groups}, "config", strict=True)
    model = values["model"]  # null is left to the weights, or to the network's default
    beside = {key: value for key, value in model.items() if key in INIT_KEYS}
    validate_arguments(InitOptions, beside, "model", strict=True)
    values["model"] = {key: value for key, value in model.items() if value is not None and key not in beside}
    for group in groups:
        check_node(values[group], group)


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The config as dicts, lists and values, every `${...}` resolved."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def check_node(node: dict[str, Any], where: str) -> None:
    """Checks a node with a `_target_`, and those below it."""
    inner = {key: value for key, value in node.items() if isinstance(value, dict)}
    if "_target_" in node:
        arguments = {k: v for k, v in node.items() if not k.startswith("_")}
        to_plain = {k: v for k, v in arguments.items() if not (isinstance(v, dict) and "_target_" in v)}
        try:
            target = get_object(node["_target_"])
        except Exception as error:
            raise UserError(f"{where}._target_={node['_target_']} cannot be imported; {error}") from None
        validate_arguments(target, to_plain, where, strict=True)
    for key, value in inner.items():
        check_node(value, f"{where}.{key}")


@contextmanager
def one_line_config_errors(words: Sequence[str]) -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise about the command line `words` into a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, UserError):  # raised in a constructor that Hydra called
            raise error.__cause__ from None
        raise UserError(explain(error, words)) from None


def explain(error: Exception, words: Sequence[str]) -> str:
    """One line: what of the config does not do, and what there is instead."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} cannot be read as key=value; {text.splitlines()[0]}"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        parent, _, name = key.rpartition(".")
        return f"the config has no {key!r}; {options(parent, words)} (+{key}=... adds a key of Lightning's or Hydra's)"
    if match := re.search(r"Could not (?:find|load) '(hydra/\w+)/([^']+)'", text):
        return f"{match[1]}={match[2]} is not there; pip install 'sn6[sweep]' (Optuna, joblib) or 'sn6[slurm]'"
    if match := re.search(r"Could not (?:find|load) '(\w+)/([^']+)'", text):
        group, name = match[1], match[2]
        found = ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))
        return f"{group}={name} is unknown; conf/{group} has {found}"
    return " ".join(text.split())


def options(parent: str, words: Sequence[str]) -> str:
    """The keys that the config has under `parent`, with the groups as `words` choose them."""
    chosen = [word for word in words if (CONF / word.partition("=")[0]).is_dir()]
    running = GlobalHydra.instance().is_initialized()  # a stage is composed inside a job
    with nullcontext() if running else initialize_config_dir(str(CONF), **VERSION_BASE):
        try:
            config = compose("config", overrides=chosen)
        except HydraException:
            config = compose("config")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return f"nor has it {parent!r}; the keys are {', '.join(map(str, config))}"
    return f"{parent or 'at the top'} has {', '.join(str(key) for key in node if not str(key).startswith('_'))}"
