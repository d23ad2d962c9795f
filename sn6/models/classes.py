"""Reduce the logits of several classes to those of building or not."""

import torch
from jaxtyping import Float
from torch import Tensor


def building_logits(logits: Float[Tensor, "b k h w"], building_class: int | None) -> Float[Tensor, "b 1 h w"]:
    """Return the logit of building: that of its class minus the highest of the other classes.

    It is above 0 exactly where building is the argmax. The logits of a single class are returned unchanged.

    Args:
        logits: one class, or several before any softmax
        building_class: channel of building among several classes; None for one class
    """
    if building_class is None:
        return logits
    logits = logits.float()
    building = torch.tensor([building_class], device=logits.device)
    others = logits.index_fill(1, building, -torch.inf).amax(dim=1, keepdim=True)
    return logits.index_select(1, building) - others
