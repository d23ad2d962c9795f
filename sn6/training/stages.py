"""The stages of an experiment: trainings one after another, each a config of its own."""

import re
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from sn6.config import check
from sn6.errors import UserError

DATA_OF_A_STAGE = ("data", "data.product", "data.bands")
MAY_DIFFER = (
    "dropout",
    "pretrained",
    "weights_file",
    "weights",
    "adapt",
    "reset_head",
    "weights_fold",
)  # model options between two stages


def stage_configs(config: DictConfig, words: list[str]) -> dict[str, DictConfig]:
    """The config of each stage, all checked before the first one starts.

    A stage's overrides go over those of its experiment, and the words of the command line over both. Words about a
    callback go to the stages that have it.

    Raises:
        UserError: a stage that is no config, words that would make all stages train on the same data, stages whose
            networks differ
    """
    for word in words:
        if word.partition("=")[0] in DATA_OF_A_STAGE:
            raise UserError(f"{word} would go to all stages ({', '.join(config.stages)}); say it in stages.NAME=[...]")
    said = {word.partition("=")[0] for word in words}
    raw = OmegaConf.to_container(config.stages, resolve=False)  # ${run_folder} is resolved in the stage's own config
    assert isinstance(raw, dict)
    configs = {}
    for key, overrides in raw.items():
        name = str(key)
        chosen = [word for word in overrides if word.partition("=")[0] not in said]
        has = compose("config", [*chosen, *(word for word in words if callback_of(word) is None)]).callbacks
        fit = [word for word in words if callback_of(word) in (None, *has) or word.startswith(("+", "~"))]
        stage = compose("config", [*chosen, *fit])
        with open_dict(stage):
            stage.stages, stage.run_folder, stage.folder = None, config.folder, str(Path(config.folder) / name)
            stage.name, stage.group = f"{config.name}/{name}", config.group
            stage.resume = True  # what was there has been put aside for all stages
        check(stage)
        configs[name] = stage
    refuse_other_networks(configs)
    return configs


def callback_of(word: str) -> str | None:
    """`callbacks.sar_handoff.adapt=mean` → `sar_handoff`; None for a word about anything else."""
    match = re.match(r"callbacks\.(\w+)\.", word)
    return match[1] if match else None


def refuse_other_networks(stages: dict[str, DictConfig]) -> None:
    """Raises a UserError where two stages do not train the same network."""
    models = {name: OmegaConf.to_container(stage.model, resolve=True) for name, stage in stages.items()}
    first, *others = models
    for other in others:
        one, two = models[first], models[other]
        assert isinstance(one, dict)
        assert isinstance(two, dict)
        adapts = OmegaConf.select(stages[other], "callbacks.sar_handoff.adapt") is not None
        free = (*MAY_DIFFER, "in_channels") if adapts else MAY_DIFFER
        keys = [key for key in {**one, **two} if one.get(key) != two.get(key) and key not in free]
        if keys:
            raise UserError(
                f"the stages {first} and {other} train different networks: model.{keys[0]} is {one.get(keys[0])} and "
                f"{two.get(keys[0])}; give both the same"
            )
