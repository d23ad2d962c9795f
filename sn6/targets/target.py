"""Declare maps that a head of the network or a loss learns from, computed from the labels of a tile."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from sn6.errors import UserError

Activation = Literal["sigmoid", "linear"]
Position = tuple[bool, int]  # whether it is flipped left-right, then number of rotations by 90°


@dataclass(frozen=True, eq=False)
class TileLabels:
    """What is known about the buildings of a whole tile, in the tile's own frame.

    Attributes:
        instances: number of the building at each pixel, 0 for background; numbers may have gaps
        valid: false on nodata, where `instances` may have a building all the same
        heights: mean height in m of the building of each number, NaN where unknown; the first entry is not used
        pixel_size: in m
    """

    instances: Int32[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    heights: Float64[np.ndarray, " n"]
    pixel_size: float

    @cached_property  # shared by the targets of a tile
    def observed(self) -> Int32[np.ndarray, "h w"]:
        """Return the instances without those parts that are on nodata, which the sensor did not observe."""
        return np.where(self.valid, self.instances, np.int32(0))


class Target(ABC):
    """Compute a map in two steps: a layer of the whole tile, which a store keeps, and from it the map of any crop.

    A map is flipped and rotated with the image, and is 0 where a crop extends beyond its tile. Where a map is NaN, its
    pixel is left out of the loss.

    A subclass is a frozen dataclass whose fields are numbers or texts: its name and fields identify the stored layer. A
    change of `tile` needs a change of one of them, else the layers that are stored already are used again. Lengths are
    in metres.

    Attributes:
        channels: number k of channels of the map
        activation: what makes the map from the output of a network that learns it
        stored_range: lowest and highest value, if the layer may be stored in 255 steps between them; None stores it
            as it is
        needs_building_fraction: whether `crop` uses the class balance of the training tiles
    """

    channels: ClassVar[int] = 1
    activation: ClassVar[Activation] = "sigmoid"
    stored_range: ClassVar[tuple[float, float] | None] = None
    needs_building_fraction: ClassVar[bool] = False

    @abstractmethod
    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "k h w"]:
        """Compute the layer of a whole tile."""

    def crop(self, layer: Any, mask: Any, building_fraction: float | None) -> Any:
        """Compute the map from the layer, with what depends on the fold; by default it is the layer.

        The arguments are NumPy arrays or torch tensors, on any device: only arithmetic that both have may be used.

        Args:
            layer: a window of the layer, (k, h, w) float32
            mask: 1 on buildings, else 0, (1, h, w) float32
            building_fraction: fraction of building among the valid pixels of the training tiles, None where it was not
                measured

        Returns:
            The map, (k, h, w) float32.
        """
        return layer

    def transform(self, pixels: Any, position: Position) -> Any:
        """Change the values of a map whose pixels were moved to a position, where they depend on directions.

        Args:
            pixels: a layer, a map or maps (..., k, h, w), NumPy array or tensor, flipped and rotated already
            position: see `sn6.data.augment.apply_position`

        Returns:
            The map in the new position; by default the values are the same in every position.
        """
        return pixels

    @property
    def fingerprint(self) -> str:
        """Return what the layer depends on besides the labels: the class and its fields."""
        return f"{type(self).__module__}.{type(self).__qualname__} {sorted(vars(self).items())}"


def tile_layers(targets: Mapping[str, Target], labels: TileLabels) -> dict[str, Float32[np.ndarray, "_ h w"]]:
    """Compute the layer of each target over a whole tile.

    Raises:
        UserError: a target returns something other than an array of its channels and the tile's size
    """
    layers = {}
    for name, target in targets.items():
        layer, shape = target.tile(labels), (target.channels, *labels.instances.shape)
        if not isinstance(layer, np.ndarray) or layer.shape != shape:
            returned = layer.shape if isinstance(layer, np.ndarray) else type(layer).__name__
            raise UserError(
                f"target {name}: {type(target).__name__}.tile returned {returned}; it must return a NumPy array of "
                f"{shape}: its channels, and the tile's size",
                kind="mismatch",
                key=name,
            )
        layers[name] = layer.astype(np.float32, copy=False)
    return layers
