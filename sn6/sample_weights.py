"""Weights of samples: how much each image of a batch counts in a loss.

A weight is a module `weight(valid (b, 1, h, w) bool, **maps) → (b,)`; like a loss it may have an attribute `targets`,
whose maps are passed by name. It depends on its own sample alone, so that the loss stays equal on one device and on
several. A new weight is one class, here or in a file of your own, and the line of a config that names it.
"""

from typing import Any

from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from sn6.targets.instances import Instances

PREFIX = "weight_"  # before the names of a weight's maps, which may be those of the loss


class Weighted(nn.Module):
    """Multiply a loss by a weight of each sample.

    Args:
        loss: of the form of `sn6.losses`
        weight: of the form above
    """

    def __init__(self, loss: nn.Module, weight: nn.Module) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight
        of_weight = getattr(weight, "targets", {})
        self.targets = {**getattr(loss, "targets", {}), **{PREFIX + name: one for name, one in of_weight.items()}}

    def forward(
        self, outputs: Float[Tensor, "b _ h w"], target: Float[Tensor, "b _ h w"], valid: Any, **maps: Any
    ) -> Float[Tensor, " b"]:
        of_weight = {name: maps.pop(name) for name in list(maps) if name.startswith(PREFIX)}
        weights = self.weight(valid, **{name.removeprefix(PREFIX): one for name, one in of_weight.items()})
        return weights * self.loss(outputs, target, valid, **maps)


class ByBuildings(nn.Module):
    """Return `base` + `per_building`·n for a sample that shows n buildings, in whole or in part.

    The winner of the challenge weighted the focal loss of an image by 0.5 + 0.5·n / 8, the third by n + 1.

    Args:
        base: weight of a sample without buildings
        per_building: by how much each building adds to it
    """

    def __init__(self, base: NonNegativeFloat = 0.5, per_building: NonNegativeFloat = 0.0625) -> None:
        super().__init__()
        self.base, self.per_building = float(base), float(per_building)
        self.targets = {"instances": Instances()}

    def forward(self, valid: Bool[Tensor, "b 1 h w"], instances: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
        return self.base + self.per_building * count_buildings(valid, instances)


def count_buildings(valid: Bool[Tensor, "b 1 h w"], instances: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """Return how many different numbers above 0 are at the valid pixels of each sample."""
    numbers = instances.masked_fill(~valid, 0).flatten(1).sort(dim=1).values
    new = numbers.diff(dim=1, prepend=numbers.new_zeros(len(numbers), 1)) > 0
    return new.sum(dim=1).float()
