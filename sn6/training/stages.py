"""The stages of an experiment, trained one after another, each with its own config."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose

from sn6.checkpoints.architecture import architecture_keys
from sn6.checkpoints.heads import check_same_heads, target_nodes
from sn6.cli import type_hints
from sn6.config.composition import compose_values, search_path
from sn6.config.overrides import key_of, quote_texts
from sn6.config.targets import import_target
from sn6.config.types import PER_STAGE
from sn6.errors import UserError
from sn6.training.config_check import check_types
from sn6.training.run_identity import marks


def stage_configs(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compose the config of each stage, all checked before the first one starts.

    The overrides of a stage win over those of its experiment, and the command line over both. Overrides of a callback
    go to the stages that have it.

    Args:
        values: config of the run, with `stages`
        overrides: of the command line

    Returns:
        Stage → config, in the order of training.

    Raises:
        UserError: a stage's config is invalid, an override would make all stages train on the same data, or the
            networks of two stages differ
    """
    check_per_stage(values, overrides)
    given = {key_of(override) for override in overrides}
    configs = {}
    for name, lines in values["stages"].items():
        of_stage = [override for override in quote_texts(lines) if key_of(override) not in given]
        general = [override for override in overrides if callback_of(override) is None]
        callbacks = compose("config", [*search_path(), *of_stage, *general]).callbacks
        chosen = [line for line in overrides if callback_of(line) in (None, *callbacks) or line[0] in "+~"]
        configs[name] = compose_values(
            [*of_stage, *chosen, "resume=true", "stages=null"],  # old files were moved aside for all stages
            name=f"{values['name']}/{name}",
            group=values["group"],
            folder=str(Path(values["folder"]) / name),
            run_folder=values["folder"],
        )
        check_types(configs[name])
    check_same_network(configs)
    return configs


def check_per_stage(values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise a UserError for an override of the command line that each stage has to have for itself."""
    hints = type_hints(import_target(values["data"]["_target_"], "data"))
    keys = ["data", *(f"data.{key}" for key, hint in hints.items() if PER_STAGE in marks(hint))]
    for override in overrides:
        if key_of(override) in keys:
            raise UserError(
                f"{override} would apply to all stages ({', '.join(values['stages'])}); set it for one with "
                "stages.NAME=[...]",
                kind="conflict",
                key=key_of(override),
            )


def callback_of(override: str) -> str | None:
    """Return the callback that an override is about: `callbacks.sar_handoff.adapt=mean` → `sar_handoff`; else None."""
    match = re.match(r"callbacks\.(\w+)[.=]", override)
    return match[1] if match else None


def check_same_network(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a UserError if two stages train different networks.

    Bands may differ where the first layer is adapted, and heads where the last layers are initialised.
    """
    first, *others = stages
    one = stages[first]["model"]
    for other in others:
        two = stages[other]["model"]
        handoff = stages[other]["callbacks"].get("sar_handoff") or {}
        keys = {"_target_", "classes", *architecture_keys(import_target(one["_target_"], "model")), "building_class"}
        keys |= set() if handoff.get("adapt") else {"in_channels"}
        if handoff.get("reset_head"):
            keys -= {"classes", "building_class"}
        else:
            heads, other_heads = (target_nodes(stages[name]["heads"]) for name in (first, other))
            check_same_heads(heads, other_heads, f"stage {first}", "callbacks.sar_handoff")
        differ = [key for key in sorted(keys) if two.get(key) not in (one.get(key), None)]  # null: that of the weights
        if differ:
            raise UserError(
                f"stages {first} and {other} train different networks: model.{differ[0]} is {one.get(differ[0])} and "
                f"{two.get(differ[0])}; set the same for both",
                kind="conflict",
                key=f"model.{differ[0]}",
                value=two.get(differ[0]),
            )
