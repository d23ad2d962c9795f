"""Declare maps that a head of the network or a loss learns from, computed from the labels of a tile."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from sn6.errors import UserError

STEPS = 255  # of a stored layer between the ends of its range
Activation = Literal["sigmoid", "softmax", "linear"]
Interpolation = Literal["nearest", "bilinear"]
Position = tuple[bool, int]  # whether it is flipped left-right, then number of rotations by 90°
FLIP: Position = (True, 0)


@dataclass(frozen=True, eq=False)
class TileLabels:
    """What is known about the buildings of a whole tile, in the tile's own frame.

    Attributes:
        instances: number of the building at each pixel, 0 for background; numbers may have gaps
        valid: false on nodata, where `instances` may have a building all the same
        heights: mean height in m of the building of each number, NaN where unknown; the first entry is not used
        pixel_size: in m
        classes: class of the building of each number, from 1; the first entry is not used; None where there is one
            class
    """

    instances: Int32[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    heights: Float64[np.ndarray, " n"]
    pixel_size: float
    classes: Int64[np.ndarray, " n"] | None = None

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
        activation: what makes the map from the outputs of a network that learns it; "softmax" is over its channels
        stored_range: lowest and highest value, if the layer is rounded to 255 steps between them, in one byte a pixel;
            None keeps it as it is, and only then may it contain NaN
        is_length: whether the values are lengths on the ground, which grow with the scale of an image
        interpolation: how the layer of a scaled or rotated crop is resampled: "nearest" if it has classes, jumps, NaN,
            "bilinear" if neighbouring pixels have similar values
        needs_building_fraction: whether `crop` uses the class balance of the training tiles
    """

    channels: ClassVar[int] = 1
    activation: ClassVar[Activation] = "sigmoid"
    stored_range: ClassVar[tuple[float, float] | None] = None
    is_length: ClassVar[bool] = False
    interpolation: ClassVar[Interpolation] = "nearest"
    needs_building_fraction: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """Return the number of channels of a network that learns the map; by default that of the map."""
        return self.channels

    @abstractmethod
    def tile(self, labels: TileLabels) -> Float32[np.ndarray, "k h w"]:
        """Compute the layer of a whole tile."""

    def crop(self, layer: Any, mask: Any, building_fraction: float | None) -> Any:
        """Compute the map from the layer, with what depends on the fold; by default it is the layer.

        Args:
            layer: a window of the layer, tensor (k, h, w) float32, which may be mapped from a file: do not change it
            mask: 1 on buildings, else 0, (1, h, w) float32, on the same device
            building_fraction: fraction of building among the valid pixels of the training tiles, None where it was not
                measured

        Returns:
            The map, (k, h, w) float32.
        """
        return layer

    def transform(self, pixels: Any, position: Position) -> Any:
        """Change the values of a map whose pixels were moved to a position, where they depend on directions.

        The outputs of a network are changed in the same way before their activation: a sigmoid map may exchange its
        channels, and only a linear one their signs.

        Args:
            pixels: a layer, a map or maps (..., k, h, w), NumPy array or tensor, flipped and rotated already
            position: see `sn6.data.augment.apply_position`

        Returns:
            The map in the new position; by default the values are the same in every position.
        """
        return pixels

    def warp(self, pixels: Any, scale: float, rotation: float) -> Any:
        """Change the values of a scaled and rotated layer, where they depend on lengths or directions.

        Args:
            pixels: layer (k, h, w), tensor, resampled already and in its position; do not change it
            scale: factor of lengths
            rotation: in degrees, anticlockwise

        Returns:
            The layer of the scaled and rotated buildings; by default lengths are multiplied by the scale, see
            `is_length`, and other values stay.
        """
        return pixels * scale if self.is_length else pixels

    def encode(self, layer: Float32[np.ndarray, "k h w"]) -> Float32[np.ndarray, "k h w"] | UInt8[np.ndarray, "k h w"]:
        """Return a layer as it is stored: as it is, or rounded to `STEPS` of its range.

        Raises:
            ValueError: a value is outside of the range, or NaN
        """
        if self.stored_range is None:
            return layer
        low, high = self.stored_range
        steps = np.rint((layer - np.float32(low)) * np.float32(STEPS / (high - low)))
        if not (steps.min(initial=0) >= 0 and steps.max(initial=0) <= STEPS):  # NaN is neither
            raise ValueError(f"returned values outside of its stored_range, {low:g} to {high:g}")
        return steps.astype(np.uint8)

    def decode(self, stored: Any) -> Any:
        """Return the values of a stored layer, tensor of float32 or uint8, in float32."""
        if self.stored_range is None:
            return stored
        low, high = self.stored_range
        values = stored.float().mul_((high - low) / STEPS)
        return values.add_(low) if low else values

    @property
    def fingerprint(self) -> str:
        """Return what the layer depends on besides the labels: the class and its fields."""
        return f"{type(self).__module__}.{type(self).__qualname__} {sorted(vars(self).items())}"


def tile_layers(
    targets: Mapping[str, Target], labels: TileLabels
) -> dict[str, Float32[np.ndarray, "_ h w"] | UInt8[np.ndarray, "_ h w"]]:
    """Compute the layer of each target over a whole tile, as it is stored: all samples are made from these values.

    Raises:
        UserError: a target returns something other than an array of its channels and the tile's size, or values out of
            its range
    """
    layers = {}
    for name, target in targets.items():
        layer, shape = target.tile(labels), (target.channels, *labels.instances.shape)
        problem = ""
        if not isinstance(layer, np.ndarray) or layer.shape != shape:
            returned = layer.shape if isinstance(layer, np.ndarray) else type(layer).__name__
            problem = f"returned {returned}; it must return a NumPy array of {shape}: its channels, and the tile's size"
        else:
            try:
                layers[name] = target.encode(layer.astype(np.float32, copy=False))
            except ValueError as error:
                problem = str(error)
        if problem:
            message = f"target {name}: {type(target).__name__}.tile {problem}"
            raise UserError(message, kind="mismatch", key=name)
    return layers
