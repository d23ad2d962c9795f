"""Several classes seen as one: building or not."""

import torch
from jaxtyping import Float
from torch import Tensor


def building_logits(logits: Float[Tensor, "b k h w"], building_class: int | None) -> Float[Tensor, "b 1 h w"]:
    """The logit of building: by how much its class is over the highest of the others.

    It is above 0 just where building is the argmax. One class is its own logit.

    Args:
        logits: of one class, or of several before any softmax
        building_class: the channel of building among several; None for one class
    """
    if building_class is None:
        return logits
    logits = logits.float()
    building = torch.tensor([building_class], device=logits.device)
    others = logits.index_fill(1, building, -torch.inf).amax(dim=1, keepdim=True)
    return logits.index_select(1, building) - others
