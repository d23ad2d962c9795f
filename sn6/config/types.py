"""Types of the keys outside the config groups, and marks for keys that resuming and stages treat apart."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt
from pydantic_core import PydanticCustomError

SCORES = ("f1", "precision", "recall", "iou", "loss")
OLD_OBJECTIVES = {f"val_{score}": f"validation.{score}" for score in SCORES} | {one: f"test.{one}" for one in SCORES}


def current_objective(name: Any) -> Any:
    """Return the name of an objective as it is.

    Raises:
        PydanticCustomError: it is a name of an older version
    """
    if isinstance(name, str) and name in OLD_OBJECTIVES:
        new = {"new": OLD_OBJECTIVES[name]}
        raise PydanticCustomError("renamed", "metrics.json is nested now; set objective={new}", new)
    return name


Objective = Annotated[  # the keys of metrics.json that tell how good a run was
    Literal[
        "validation.f1", "validation.precision", "validation.recall", "validation.iou", "validation.loss",
        "validation.touching_f1", "validation.alone_f1", "validation.ap50", "validation.pq",
        "test.f1", "test.precision", "test.recall", "test.iou", "test.loss",
        "test.touching_f1", "test.alone_f1", "test.ap50", "test.pq",
    ],
    BeforeValidator(current_objective),
]  # fmt: skip


def check_name(name: str) -> str:
    """Return the name of a run, whose files are in outputs/<name>, as it is.

    Raises:
        PydanticCustomError: it is empty, would be a folder elsewhere, or has characters that no terminal shows
    """
    parts = PurePath(name).parts
    if name.startswith(("/", "~")) or ".." in parts or not parts:
        raise PydanticCustomError("name", "it names a folder below outputs/, such as first or radar/first")
    if not name.isprintable() or name != name.strip():
        raise PydanticCustomError("name", "no line breaks, tabs or spaces at the ends")
    return name


Name = Annotated[str, AfterValidator(check_name)]
StageName = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]  # of a subfolder
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # that Lightning and NumPy take
MAX_WINDOW = 16_384  # pixels
MAX_WORKERS = 256  # processes of a loader
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
    resume: Annotated[bool | Literal["extend"], MAY_CHANGE] = True
    seed: Seed = 0
    simulation: dict[str, Any] | None = None
    stages: Annotated[Annotated[dict[StageName, list[str]], Field(min_length=1)] | None, MAY_CHANGE] = None
    objective: Annotated[Objective, MAY_CHANGE] = "validation.f1"
    on_failed_job: Annotated[Literal["continue", "stop"], MAY_CHANGE] = "continue"
    window: Annotated[int, Field(gt=0, le=MAX_WINDOW)] | None = None
    window_overlap: NonNegativeInt = 128
    flips: bool = False
    compile: bool = False
    test: Annotated[dict[str, Any], MAY_CHANGE] = field(default_factory=dict)


@dataclass(frozen=True)
class TestOptions:
    """The keys of `test` in conf/config.yaml."""

    __test__ = False  # for pytest

    revisits: bool = False
    fade: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 16.0
    balance: bool = True


OPTION_NAMES = tuple(RunOptions.__dataclass_fields__)
