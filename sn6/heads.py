"""The heads of a network: the maps that it learns, in the channels of its output, with their losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sn6.models.logits import sigmoid, softmax
from sn6.targets.classes import Classes
from sn6.targets.mask import Mask
from sn6.targets.target import Position, Target

MASK = "mask"  # footprints and scores are made from its map
CLASSES = "classes"  # gives footprints their classes; where there is no head `mask`, it gives that map too
ACTIVATIONS = {"sigmoid": sigmoid, "softmax": softmax, "linear": Tensor.float}
Outputs = Mapping[str, Float[Tensor, "b _ h w"]]  # by head: of the network before the activation, or maps after it


class Heads(dict[str, Target]):
    """The named maps in the channels of a network: first the mask if there is one, then the others by name.

    The order does not depend on that of the declaration, so that weights have the same meaning in every config.

    Args:
        targets: name → target
    """

    def __init__(self, targets: Mapping[str, Target]) -> None:
        super().__init__(sorted(targets.items(), key=lambda item: (item[0] != MASK, item[0])))

    @property
    def channels(self) -> int:
        """Return the number of channels of all heads."""
        return sum(target.outputs for target in self.values())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes of buildings; none where there is one class."""
        target = self.get(CLASSES)
        return target.class_names if isinstance(target, Classes) else ()

    def split(self, outputs: Float[Tensor, "b channels h w"]) -> dict[str, Float[Tensor, "b _ h w"]]:
        """Divide the output of a network among the heads."""
        parts = outputs.split([target.outputs for target in self.values()], dim=1)
        return dict(zip(self, parts, strict=True))

    def activate(self, outputs: Outputs) -> dict[str, Float[Tensor, "b _ h w"]]:
        """Return the maps (b, k, h, w) of each head's outputs in float32, without gradient.

        Where there are classes and no mask, the mask is 1 minus the probability of the background.
        """
        maps = {name: ACTIVATIONS[self[name].activation](pixels.detach()) for name, pixels in outputs.items()}
        return maps if MASK in maps or CLASSES not in maps else {MASK: 1 - maps[CLASSES][:, :1], **maps}

    def transform(self, outputs: Float[Tensor, "b channels h w"], position: Position) -> Tensor:
        """Change outputs that were flipped and rotated to a position, where they depend on directions."""
        if all(type(target).transform is Target.transform for target in self.values()):
            return outputs
        parts = self.split(outputs)
        return torch.cat([target.transform(parts[name], position) for name, target in self.items()], dim=1)

    def rescale(self, outputs: Float[Tensor, "b channels h w"], scale: float) -> Tensor:
        """Change the outputs of an image that was enlarged by `scale` to those of its own pixels, where they differ."""
        if not any(target.is_length for target in self.values()):
            return outputs
        parts = self.split(outputs)
        return torch.cat([parts[name] / scale if one.is_length else parts[name] for name, one in self.items()], dim=1)


@dataclass(frozen=True, eq=False)
class Head:
    """What some channels of a network learn.

    Attributes:
        target: the map
        loss: (outputs (b, k, h, w), target (b, c, h, w), valid (b, 1, h, w), the maps of its `targets`) → (b,)
        weight: factor of the loss
    """

    target: Target
    loss: nn.Module
    weight: float = 1.0


class HeadLosses(nn.Module):
    """Compute the loss of each head, and their weighted sum.

    Args:
        heads: by name
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.heads = Heads({name: head.target for name, head in heads.items()})
        self.weights = [float(heads[name].weight) for name in self.heads]
        self.modules_of_heads = nn.ModuleList(heads[name].loss for name in self.heads)  # a ModuleDict refuses names

    @property
    def targets(self) -> dict[str, Target]:
        """Return the targets of the heads and of their losses, by the names of their maps in a batch.

        The map of the head `mask` is that of every batch; the maps of a loss are named `<head>.<name>`.
        """
        targets = {name: target for name, target in self.heads.items() if name != MASK}
        for name, loss in zip(self.heads, self.modules_of_heads, strict=True):
            targets |= {f"{name}.{key}": target for key, target in targets_of(loss).items()}
        return targets

    def forward(self, outputs: Outputs, batch: Mapping[str, Any]) -> dict[str, Float[Tensor, " b"]]:
        """Return the loss of each sample by head, without the weights.

        Args:
            outputs: of the network by head
            batch: with `valid` and the maps of `targets`
        """
        losses = {}
        for (name, head), loss in zip(self.heads.items(), self.modules_of_heads, strict=True):
            target, valid = batch[name], batch["valid"]
            if head.stored_range is None:  # may be NaN where it is not known
                unknown = torch.isnan(target)
                target, valid = target.masked_fill(unknown, 0), valid & ~unknown.any(dim=1, keepdim=True)
            maps = {key: batch[f"{name}.{key}"] for key in targets_of(loss)}
            losses[name] = loss(outputs[name], target, valid, **maps)
        return losses

    def weighted_sum(self, losses: Mapping[str, Float[Tensor, " b"]]) -> Float[Tensor, " b"]:
        """Return the loss of each sample that is minimised."""
        first, *others = [weight * losses[name] for name, weight in zip(self.heads, self.weights, strict=True)]
        return sum(others, first)


def mask_head(loss: nn.Module) -> dict[str, Head]:
    """Return the heads of a network that learns the mask alone."""
    return {MASK: Head(Mask(), loss)}


def targets_of(loss: nn.Module) -> Mapping[str, Target]:
    """Return the targets that a loss declares, by name."""
    return getattr(loss, "targets", {})
