"""Trained networks made anew from what their training left, and the logits that they agree on."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from sn6.checkpoints.loading import RULE, read_checkpoint
from sn6.checkpoints.state_dict import mismatch
from sn6.data.dataset import Nodata, Source, Statistics, normalize
from sn6.errors import UserError, first_line
from sn6.footprints.blocks import PolygonOptions
from sn6.models.classes import building_logits

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WINDOW, OVERLAP = 1024, 256  # pixels; a U-Net reaches 107 of them, a TernausNet 184 (VGG-16: 215), an FCN 245


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and how it is used.

    Attributes:
        network: (b, c, h, w) → logits (b, k, h, w)
        building_class: the channel of building where there are several
        source: the product and bands that it sees
        statistics: of its normalisation
        nodata: what nodata holds after it
        rule: from logits to footprints
        window: side of the windows of its run in pixels and their overlap; None where it saw whole tiles
        precision: of its run
    """

    network: nn.Module
    building_class: int | None
    source: Source
    statistics: Statistics
    nodata: Nodata
    rule: PolygonOptions
    window: tuple[int, int] | None
    precision: Precision


def load_network(path: Path) -> TrainedNetwork:
    """A trained network from a checkpoint or `weights.safetensors`; no code is read from it.

    Raises:
        UserError: it cannot be read, or does not tell its network and data
    """
    weights, card = read_checkpoint(path, "checkpoint")
    if "form" in card:
        raise UserError(
            f"checkpoint={path} holds weights of {card['form']} and does not tell bands, normalisation and threshold; "
            f"`python -m sn6.run experiment=baseline_weights model.weights={path} data.root=DIR name=NAME` scores them "
            "and leaves outputs/NAME, which checkpoint= takes"
        )
    try:
        network = network_from(dict(card["network"]))
        told = card["source"]
        source = Source(told["product"], tuple(told["bands"]), told["orient"], told["min_area"])
        statistics = Statistics(tuple(card["mean"]), tuple(card["std"]), None)
        nodata = card["nodata"]
    except (KeyError, TypeError, ValueError, ImportError, AttributeError) as error:
        raise UserError(
            f"checkpoint={path} does not tell its network, bands and normalisation ({first_line(error)}); "
            "give a checkpoint of sn6.run"
        ) from None
    if differences := mismatch(network, weights):
        raise UserError(f"checkpoint={path} does not fit the network that it names: {differences}; give another")
    network.load_state_dict(weights)
    window = (card["window"], card["window_overlap"]) if card.get("window") else None
    precision: Precision = card.get("precision") or "32-true"
    rule = PolygonOptions(**card.get("footprints", {}))
    return TrainedNetwork(
        network.eval(), card.get("building_class"), source, statistics, nodata, rule, window, precision
    )


def network_from(options: dict[str, Any]) -> nn.Module:
    """The network of a config, without the weights that it once started from."""
    module, _, name = options.pop("_target_").rpartition(".")
    make = getattr(import_module(module), name)
    if not (isinstance(make, type) and issubclass(make, nn.Module)):  # the file is not to call what it likes
        raise TypeError(f"{module}.{name} is no network")
    fetched = {key: None for key in ("pretrained", "weights_file") if key in options}
    return make(**options | fetched).to(memory_format=torch.channels_last)


def load_all(paths: Sequence[Path]) -> list[TrainedNetwork]:
    """Networks that go together.

    Raises:
        UserError: they see different bands
    """
    networks = [load_network(path) for path in paths]
    for path, one in zip(paths, networks, strict=True):
        ours, first = one.source, networks[0].source
        if (ours.product, ours.bands, ours.orient) != (first.product, first.bands, first.orient):
            raise UserError(
                f"checkpoint={path} sees bands {list(ours.bands)} of {ours.product} (orient={ours.orient}), {paths[0]} "
                f"bands {list(first.bands)} of {first.product} (orient={first.orient}); logits of like networks alone "
                "are averaged"
            )
    return networks


def common_options(networks: Sequence[TrainedNetwork], paths: Sequence[Path], **said: float | None) -> PolygonOptions:
    """The rule of the networks, with what is `said` over it.

    Raises:
        UserError: they differ in what is not said
    """
    values: dict[str, float] = {}
    for key in RULE:
        value = said[key]
        held = [getattr(one.rule, key) for one in networks] if value is None else [value]
        if len(set(held)) > 1:
            raise UserError(f"the checkpoints hold different {key}: {', '.join(map(str, held))}; give {key}=...")
        values[key] = held[0]
    return PolygonOptions(**values)


@dataclass(frozen=True)
class Averaging:
    """What is averaged beside the networks.

    Attributes:
        flips: whether an image is seen flipped left to right as well
        scales: factors on its size
        precision: of the arithmetic
    """

    flips: bool
    scales: tuple[float, ...]
    precision: Precision


class Ensemble:
    """The mean of the logits of networks, flips and scales.

    Args:
        networks: that see the same bands
        device: where they compute
        averaging: see there
    """

    def __init__(self, networks: Sequence[TrainedNetwork], device: str, averaging: Averaging) -> None:
        self.networks = networks
        self.device = torch.device(device)
        self.averaging = averaging
        for one in networks:
            one.network.to(self.device)

    @property
    def bands(self) -> tuple[int, ...]:
        """Those that the networks see."""
        return self.networks[0].source.bands

    @torch.inference_mode()
    def logits(
        self, pixels: Sequence[Float32[np.ndarray, "c h w"]], valid: Sequence[Bool[np.ndarray, "h w"]]
    ) -> Float32[np.ndarray, "b h w"]:
        """Logits of images of one size, NaN on nodata.

        Raises:
            UserError: the device's memory does not hold them
        """
        passes = len(self.networks) * len(self.averaging.scales) * (1 + self.averaging.flips)
        total = torch.zeros(len(pixels), *valid[0].shape, device=self.device)
        try:
            for one in self.networks:
                pairs = zip(pixels, valid, strict=True)
                images = np.stack([normalize(image, mask, one.statistics, one.nodata) for image, mask in pairs])
                total += self._summed(one, torch.from_numpy(images).to(self.device))
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.device} has not the memory for batch={len(pixels)} windows of {valid[0].shape[-1]} pixels; "
                "give a smaller batch= or window="
            ) from None
        logits = (total / passes).cpu().numpy()
        logits[~np.stack(valid)] = np.nan
        return logits

    def _summed(self, one: TrainedNetwork, image: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b h w"]:
        """Of one network, over scales and flips."""
        total = torch.zeros_like(image[:, 0])
        for scale in self.averaging.scales:
            scaled = image if scale == 1 else F.interpolate(image, scale_factor=scale, mode="bilinear", antialias=True)
            logits = self._forward(one, scaled)
            if self.averaging.flips:
                logits = logits + self._forward(one, scaled.flip(-1)).flip(-1)
            if scale != 1:
                logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear")
            total += logits[:, 0]
        return total

    def _forward(self, one: TrainedNetwork, image: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b 1 h w"]:
        half = HALVES.get(self.averaging.precision)
        with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
            logits = one.network(image.contiguous(memory_format=torch.channels_last)).float()
        return building_logits(logits, one.building_class)
