"""Declare maps that a loss needs beside the mask, computed from the instance labels of a tile."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int32

from sn6.errors import UserError


class Target(ABC):
    """Compute a map in two steps: a layer of the whole tile, which a store keeps, and from it the map of any crop.

    A map is flipped and rotated with the image, and is 0 where a crop extends beyond its tile.

    A subclass is a frozen dataclass whose fields are numbers or texts: its name and fields identify the stored layer. A
    change of `tile` needs a change of one of them, else the layers that are stored already are used again.

    Attributes:
        needs_building_fraction: whether `crop` uses the class balance of the training tiles
    """

    needs_building_fraction: ClassVar[bool] = False

    @abstractmethod
    def tile(self, instances: Int32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Compute the layer of a whole tile.

        Args:
            instances: number of the building at each pixel, 0 for background; in the tile's own frame
        """

    def crop(self, layer: Any, mask: Any, building_fraction: float | None) -> Any:
        """Compute the map from the layer, with what depends on the fold; by default it is the layer.

        The arguments are NumPy arrays or torch tensors, on any device: only arithmetic that both have may be used.

        Args:
            layer: a window of the layer, (1, h, w) float32
            mask: 1 on buildings, else 0, (1, h, w) float32
            building_fraction: fraction of building among the valid pixels of the training tiles, None where it was not
                measured

        Returns:
            The map, (1, h, w) float32.
        """
        return layer

    @property
    def fingerprint(self) -> str:
        """Return what the layer depends on besides the instances: the class and its fields."""
        return f"{type(self).__module__}.{type(self).__qualname__} {sorted(vars(self).items())}"


def tile_layers(
    targets: Mapping[str, Target], instances: Int32[np.ndarray, "h w"]
) -> dict[str, Float32[np.ndarray, "1 h w"]]:
    """Compute the layer of each target over a whole tile.

    Raises:
        UserError: a target returns something other than an array of the tile's size
    """
    layers = {}
    for name, target in targets.items():
        layer = target.tile(instances)
        if not isinstance(layer, np.ndarray) or layer.shape != instances.shape:
            returned = layer.shape if isinstance(layer, np.ndarray) else type(layer).__name__
            raise UserError(
                f"target {name}: {type(target).__name__}.tile returned {returned} for a tile of {instances.shape}; it "
                "must return a NumPy array of the tile's size",
                kind="mismatch",
                key=name,
            )
        layers[name] = layer.astype(np.float32, copy=False)[None]
    return layers
