"""Pad images to the sizes that a network takes."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pad_to_multiple(image: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c _ _"]:
    """Pad `image` with zeros (nodata) below and right, so that height and width are multiples of `multiple`."""
    below, right = (-size % multiple for size in image.shape[-2:])
    return F.pad(image, (0, right, 0, below)) if below or right else image
