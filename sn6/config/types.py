"""Types of the keys outside the config groups, and marks for keys that resuming and stages treat apart."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

Objective = Literal[  # the keys of metrics.json that tell how good a run was
    "val_f1", "val_precision", "val_recall", "val_iou", "val_loss", "f1", "precision", "recall", "iou", "loss"
]
Name = Annotated[str, Field(pattern=r"[^./\s]")]  # neither empty nor a parent folder
SWEEP_GROUPS = ("sweep", "cluster")  # config groups that need -m


class Mark(Enum):
    """What is special about a key, as metadata of `Annotated` in the signature that declares it."""

    MAY_CHANGE = "a resumed run may have another value: it does not change what is trained"
    PER_STAGE = "has a value for each stage, and cannot be given for all of them at once"


MAY_CHANGE, PER_STAGE = Mark.MAY_CHANGE, Mark.PER_STAGE


@dataclass(frozen=True)
class RunOptions:
    """The keys of conf/config.yaml outside the groups, which says what each means."""

    name: Annotated[Name, MAY_CHANGE]
    group: Annotated[str, MAY_CHANGE]
    folder: Annotated[str, MAY_CHANGE]
    run_folder: Annotated[str, MAY_CHANGE]
    resume: Annotated[bool, MAY_CHANGE] = True
    seed: NonNegativeInt = 0
    simulation: dict[str, Any] | None = None
    stages: Annotated[dict[str, list[str]] | None, MAY_CHANGE] = None
    objective: Annotated[Objective, MAY_CHANGE] = "val_f1"
    on_failed_job: Annotated[Literal["continue", "stop"], MAY_CHANGE] = "continue"
    window: PositiveInt | None = None
    window_overlap: NonNegativeInt = 128
    compile: bool = False


OPTION_NAMES = tuple(RunOptions.__dataclass_fields__)
