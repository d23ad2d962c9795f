"""What a network was trained on, and under which licence these data are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PUBLISHED = {  # class of the data set → its name
    "sn6.datasets.spacenet6.SpaceNet6": "SpaceNet 6 (Rotterdam)",
    "sn6.datasets.spacenet2.SpaceNet2": "SpaceNet 2",
}


@dataclass(frozen=True)
class TrainingData:
    """Data that a network was trained on.

    Attributes:
        name: of the data set
        is_simulated: whether sn6 simulated them; None where that is not known
        spdx: identifier of their licence, None where they have none, or where it is not known
        licence: a sentence about it
    """

    name: str
    is_simulated: bool | None
    spdx: str | None
    licence: str


def training_data(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> TrainingData:
    """Return the data of a run.

    Args:
        config: of the run, empty where it is not known
        metrics: contents of its metrics.json, empty where they are not known
    """
    data = config.get("data", {})
    target = (data.get("dataset") or {}).get("_target_")
    is_simulated = metrics.get("data", {}).get("simulated")
    if is_simulated:
        return TrainingData(
            "simulated data in SpaceNet 6 format",
            True,
            None,
            "The training data were simulated by sn6, and no licence of others covers them.",
        )
    if target in PUBLISHED and is_simulated is False:
        name = PUBLISHED[target]
        return TrainingData(
            name, False, "CC-BY-SA-4.0", f"The training data, {name}, are licensed under CC BY-SA 4.0: name the source."
        )
    own = "own data" if target is not None and target not in PUBLISHED else "unknown data"
    return TrainingData(
        own, is_simulated, None, "The licence of the training data is not known here: ask the owner of the data."
    )
