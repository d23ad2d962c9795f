"""Make samples from layers of tiles: normalise the image, and compute the maps of the targets.

This is the one way for whole tiles and for crops, from GeoTIFFs and from a store, on a CPU and on a GPU.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from sn6.data.normalization import Nodata, Statistics
from sn6.targets.target import Position, Target

Layers = dict[str, Shaped[Tensor, "..."]]  # `image`, `valid`, `instances` and those of the targets, as stored


class SampleMaker:
    """Make samples for a network.

    Args:
        statistics: for the normalisation and the class balance
        nodata: values of nodata pixels after the normalisation
        targets: by name, which is the key of the map in a sample
        steps: values of a layer `image` per unit of the product, a power of two: both are rounded equally
        device: of the layers and the samples
    """

    def __init__(
        self,
        statistics: Statistics,
        nodata: Nodata,
        targets: Mapping[str, Target],
        steps: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.nodata = nodata
        self.targets = targets
        self.building_fraction = statistics.building_fraction
        self.device = device
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] * steps
            for values in (statistics.mean, statistics.std)
        )

    def empty(self, number: int, height: int, width: int) -> dict[str, Tensor]:
        """Return `number` samples to fill.

        Returns:
            `image (b, c, h, w)`, `mask (b, 1, h, w)` and the map `(b, k, h, w)` of each target in float32, and
            `valid (b, 1, h, w)` bool.
        """
        channels = {"image": len(self.mean), "mask": 1, "valid": 1}
        channels |= {name: target.channels for name, target in self.targets.items()}
        return {
            name: torch.empty(
                (number, count, height, width),
                dtype=torch.bool if name == "valid" else torch.float32,
                device=self.device,
            )
            for name, count in channels.items()
        }

    def fill(
        self,
        sample: dict[str, Tensor],
        layers: Layers,
        position: Position,
        inside: Bool[Tensor, "1 h w"] | None = None,
        all_valid: bool = False,
    ) -> None:
        """Write a sample.

        Args:
            sample: one of `empty`
            layers: of the same pixels, flipped and rotated already
            position: from the tile's own frame to theirs, which the maps of some targets depend on
            inside: false where a crop extends beyond its tile; None where it does not
            all_valid: whether all pixels are known to be valid
        """
        image, mask, valid = sample["image"], sample["mask"], sample["valid"]
        image.copy_(as_unsigned(layers["image"])).sub_(self.mean).div_(self.std)
        mask.copy_(as_unsigned(layers["instances"])).clamp_(max=1)
        valid.copy_(layers["valid"])
        for name, target in self.targets.items():
            layer = target.transform(target.decode(layers[name]), position)
            sample[name].copy_(target.crop(layer, mask, self.building_fraction))
        if self.nodata == "zero" and not all_valid:
            image.masked_fill_(~valid, 0)
        if inside is not None:
            for name in ("image", *self.targets):
                sample[name].masked_fill_(~inside, 0)


def as_unsigned(stored: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
    """Return signed 16-bit integers as unsigned ones, and bool as 0 and 1, which convert to float faster."""
    types = {torch.int16: torch.uint16, torch.bool: torch.uint8}
    return stored.view(types.get(stored.dtype, stored.dtype))
