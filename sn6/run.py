"""The door to training: `python -m sn6.run model=ternausnet data=sar loss=bce data.root=DIR`."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from sn6.config import CONF, TRUST, VERSION_BASE, check, one_line_config_errors
from sn6.errors import UserError, one_line_errors
from sn6.resume import put_aside
from sn6.stage import train
from sn6.whole import write_text

log = logging.getLogger(__name__)
DATA_OF_A_STAGE = ("data", "data.product", "data.bands")
MAY_DIFFER = ("dropout", "pretrained", "weights_file", "weights")  # model options between two stages


def run(config: DictConfig, words: list[str]) -> dict[str, Any]:
    """Trains the stages of `config` one after another, or the one training that it is.

    Args:
        config: as conf/ composes it
        words: of the command line, which go over what a stage says

    Returns:
        The metrics of the last stage, with those of the others under their names.
    """
    folder = Path(config.folder)
    if not config.resume:
        rank_zero_only(put_aside)(folder)
    if not config.stages:
        return train(config)
    stages = stage_configs(config, words)
    metrics = {name: train(stage) for name, stage in stages.items()}
    last = list(stages)[-1]
    joined = metrics.pop(last) | metrics
    rank_zero_only(write_text)(folder / "metrics.json", json.dumps(joined, indent=2) + "\n")
    log.info("the run of %s: %s", " and ".join(stages), folder / "metrics.json")
    return joined


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
            stage.name, stage.group = f"{config.name}/{name}", config.name
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


@hydra.main(**VERSION_BASE, **TRUST, config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> float:
    """One job of Hydra: trains, and returns the objective for a sweep."""
    with one_line_errors(), nothing_left_empty(Path(config.folder)), one_line_config_errors(sys.argv[1:]):
        return run(config, list(HydraConfig.get().overrides.task))[config.objective]


@contextmanager
def nothing_left_empty(folder: Path) -> Iterator[None]:
    """Removes the folder that Hydra made for a run that was refused before it wrote anything."""
    try:
        yield
    except UserError:
        with suppress(OSError):  # it holds something, or another rank was first
            folder.rmdir()
        raise


def main() -> None:
    """Runs the command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # what Hydra raises is told in one line here
    with one_line_errors(), one_line_config_errors(sys.argv[1:]):
        job()


if __name__ == "__main__":
    main()
