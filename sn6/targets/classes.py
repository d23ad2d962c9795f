"""Give each pixel the class of its building."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from sn6.errors import UserError
from sn6.targets.target import Activation, Target, TileLabels

MAX_CLASSES = 255  # of a stored layer, in one byte a pixel


@dataclass(frozen=True)
class Classes(Target):
    """Map each building to the number of its class, from 1, and the background to 0.

    A network that learns it has a channel for the background, then one for each class.

    Attributes:
        names: of the classes, in the order of their numbers

    Raises:
        UserError: there is no name, one is given twice, or there are more than `MAX_CLASSES`
    """

    names: Sequence[str | int] | None

    activation: ClassVar[Activation] = "softmax"
    stored_range: ClassVar[tuple[float, float] | None] = (0, 255)  # so that each step is a class

    def __post_init__(self) -> None:
        names = self.class_names
        if not names or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
            raise UserError(
                f"invalid data.classes={list(names)}: the head classes needs 1 to {MAX_CLASSES} different names; set "
                "data.classes=[NAME,...], and data.category to the attribute of the labels that has them",
                kind="invalid_value",
                key="data.classes",
                value=list(names),
            )
        object.__setattr__(self, "names", names)  # as a config gives a list, or null for one class

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names as texts."""
        return tuple(map(str, self.names or ()))

    @property
    def outputs(self) -> int:
        """Return the number of classes, the background included."""
        return 1 + len(self.class_names)

    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "1 h w"]:
        """Return the class of the building at each pixel; nodata is background."""
        if labels.classes is None:
            if labels.observed.any():
                raise UserError(
                    "the labels have no classes; set data.category and data.classes, or choose heads=mask",
                    kind="conflict",
                    key="heads.classes",
                )
            return np.zeros((1, *labels.instances.shape), dtype=np.float32)
        classes = labels.classes.astype(np.float32)
        classes[:1] = 0
        return classes[labels.observed][None]
