"""Make samples from layers of tiles: normalise the image, and compute the maps of the targets.

This is the one way for whole tiles and for crops, from GeoTIFFs and from a store, on a CPU and on a GPU.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from sn6.data.normalization import Nodata, Statistics
from sn6.data.warp import Resampling, Warp
from sn6.targets.target import Position, Target

Layers = dict[str, Shaped[Tensor, "..."]]  # `image`, `valid`, `instances` and those of the targets, as stored
ChangeDecibels = Callable[[Tensor, Tensor], Tensor]  # image and mean in dB → image
NO_WARP = Warp()


class SampleMaker:
    """Make samples for a network.

    Args:
        statistics: for the normalisation and the class balance
        nodata: values of nodata pixels after the normalisation
        targets: by name, which is the key of the map in a sample
        scale: value of the product that is 0 in a layer `image`, and the layer's steps per unit of the product, a power
            of two: both are rounded equally
        device: of the layers and the samples
    """

    def __init__(
        self,
        statistics: Statistics,
        nodata: Nodata,
        targets: Mapping[str, Target],
        scale: tuple[float, float] = (0.0, 1.0),
        device: torch.device | str = "cpu",
    ) -> None:
        self.nodata = nodata
        self.targets = targets
        self.building_fraction = statistics.building_fraction
        least, self.steps = scale
        self.device = device
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] * self.steps
            for values in ([mean - least for mean in statistics.mean], statistics.std)
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

    def resample(
        self, layers: Layers, warp: Warp, crop: int, all_valid: bool
    ) -> tuple[Layers, Bool[Tensor, "1 {crop} {crop}"] | None]:
        """Scale and rotate the layers of a window: those of continuous values bilinearly, the others to the nearest.

        The image is interpolated in the units of the product, between valid pixels, as `sn6.prediction` does. This
        keeps the mean of decibels, which the normalisation is based on. Interpolated powers would keep that of the
        power instead, so that pixels become brighter in decibels the further they are from their sources: 0.7 dB on the
        simulated archive.

        Args:
            layers: of the window, flipped and rotated by 90° already
            warp: scale and rotation
            crop: edge length of the result
            all_valid: whether all pixels of the window are valid

        Returns:
            The layers (k, crop, crop); and false where a pixel is beyond the window, None where there is no such pixel.
        """
        smooth = ["image", *(name for name, target in self.targets.items() if target.interpolation == "bilinear")]
        maps = {name: as_unsigned(layers[name]).float() for name in smooth}
        is_weighted = self.nodata == "zero" and not all_valid
        if is_weighted:
            maps["image"] = maps["image"] * layers["valid"]
            maps["weight of valid pixels"] = layers["valid"].float()
        height, width = layers["valid"].shape[-2:]
        resampling = Resampling(warp, crop, height, width, self.device)
        parts = resampling.bilinear(torch.cat(list(maps.values()))).split([len(one) for one in maps.values()])
        resampled: Layers = dict(zip(maps, parts, strict=True))
        if is_weighted:  # at least 1/4 where the nearest pixel is valid; the others are not used
            resampled["image"] = resampled["image"] / resampled.pop("weight of valid pixels").clamp_(min=0.25)
        nearest = resampling.nearest({name: layer for name, layer in layers.items() if name not in maps})
        return resampled | nearest, resampling.inside

    def fill(
        self,
        sample: dict[str, Tensor],
        layers: Layers,
        position: Position,
        warp: Warp = NO_WARP,
        inside: Bool[Tensor, "1 h w"] | None = None,
        all_valid: bool = False,
        change_decibels: ChangeDecibels | None = None,
    ) -> None:
        """Write a sample.

        Args:
            sample: one of `empty`
            layers: of the same pixels, flipped and rotated already, then scaled and rotated by `warp`
            position: from the tile's own frame to theirs, which the maps of some targets depend on
            warp: after it, which they depend on too
            inside: false where a crop extends beyond its tile; None where it does not
            all_valid: whether all pixels are known to be valid
            change_decibels: changes the image before its normalisation
        """
        image, mask, valid = sample["image"], sample["mask"], sample["valid"]
        image.copy_(as_unsigned(layers["image"]))
        if change_decibels is not None:
            image.copy_(change_decibels(image / self.steps, self.mean / self.steps)).mul_(self.steps)
        image.sub_(self.mean).div_(self.std)
        mask.copy_(as_unsigned(layers["instances"])).clamp_(max=1)
        valid.copy_(layers["valid"])
        for name, target in self.targets.items():
            layer = target.transform(target.decode(layers[name]), position)
            if not warp.is_identity:
                layer = target.warp(layer, warp.scale, warp.rotation)
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
