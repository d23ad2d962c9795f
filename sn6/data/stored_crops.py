"""Make training crops from a store, a batch at a time, in the process and on the device that train on them.

Sending a crop from a worker process to the training process takes several times as long as making it.
"""

import gc
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from sn6.data.augment import Window, apply_position, change_pixels, draw_position, draw_warp
from sn6.data.dataset import HALF_ROTATION, CropDataset
from sn6.data.samples import Layers, SampleMaker, as_unsigned
from sn6.data.store import Store
from sn6.data.store_layers import stored_scale
from sn6.data.warp import Warp
from sn6.errors import counted
from sn6.files import shown_size
from sn6.progress import track
from sn6.targets.target import Position

MEMORY_FRACTION = 0.5  # of the free memory that tiles may use; the rest is for the network
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """Tile, window and geometry of a crop.

    Attributes:
        tile: index of the tile
        window: rows and columns, in the tile's own frame
        is_rotated: whether the tile is rotated by 180°
        position: from the tile's own frame to that of the crop
        warp: scale and rotation after it
        is_valid: whether all pixels of the window are valid
        rng: generator of its other changes
    """

    tile: int
    window: Window
    is_rotated: bool
    position: Position
    warp: Warp
    is_valid: bool
    rng: np.random.Generator


class StoredCrops(Dataset):
    """Make the batches of a CropDataset from a store.

    Window and geometry are drawn by the same functions of (seed, epoch, draw), followed by the same arithmetic.
    The tiles are mapped from disk, or resident on the device (see `load_to_device`).

    Args:
        crops: dataset of the crops
        store: store with the tiles of `crops`
        device: device of the batches
    """

    def __init__(self, crops: CropDataset, store: Store, device: torch.device) -> None:
        self.crops = crops
        self.store = store
        self.device = device
        self.tiles: dict[int, Layers] = {}  # tiles that were used
        self.mapped: dict[
            int, tuple[np.ndarray, np.ndarray]
        ] = {}  # their valid pixels and instances: windows need them
        self.is_resident = False
        tiles = crops.tiles
        scale = stored_scale(store.source.product)
        self.maker = SampleMaker(tiles.statistics, tiles.nodata, tiles.targets, scale, device)

    def load_to_device(self) -> None:
        """Copy all tiles to the device; log a warning where they do not fit into its memory besides a network."""
        numbers = range(len(self.crops.tiles))
        size = sum(layer.nbytes for number in numbers for layer in self._tile(number).values())
        available = int(MEMORY_FRACTION * free_memory(self.device))
        if size > available:
            log.warning(
                "the training tiles need %s, but only %s of %s are available besides the network; the crops are read "
                "from the store on disk",
                *(shown_size(size), shown_size(available), self.device),
            )
            return
        self.is_resident = True
        for number in track(numbers, f"loading {counted(len(numbers), 'tile')} to {self.device}"):
            is_building = as_unsigned(self._tile(number)["instances"] != 0)  # one byte per pixel
            layers = self._tile(number) | {"instances": is_building}
            self.tiles[number] = {name: torch.clone(layer).to(self.device) for name, layer in layers.items()}

    def __len__(self) -> int:
        return len(self.crops)

    def __getitems__(self, draws: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Return a batch of samples like those of a TileDataset; a DataLoader calls this once per batch."""
        crops = [self._draw(*draw) for draw in draws]
        layers: Iterable[Layers] = (self._crop(crop) for crop in crops)  # one at a time: it stays in the CPU's cache
        if self.device.type == "cuda" and not self.is_resident:
            layers = self._copy_to_device(list(layers))
        batch = self._batch(layers, crops)
        names = [self.crops.tiles.tiles[crop.tile].image_id for crop in crops]
        return batch | {"image_id": names, "index": torch.tensor([crop.tile for crop in crops], device=self.device)}

    def _tile(self, number: int) -> Layers:
        """Return the layers of a tile in its own frame, mapped unless they are resident on the device."""
        if number not in self.tiles:
            stored = self.store.layers(self.crops.tiles.tiles[number])
            self.mapped[number] = stored["valid"][0], stored["instances"][0]
            self.tiles[number] = {
                # the same bits as signed integers, for which torch has more operations
                name: torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
                for name, array in stored.items()
            }
        return self.tiles[number]

    def _draw(self, epoch: int, draw: int) -> Crop:
        number, prefers, rng = self.crops.draw_tile(epoch, draw)
        self._tile(number)
        is_rotated, (valid, instances) = self.crops.tiles.is_rotated(number), self.mapped[number]
        warp = draw_warp(self.crops.augmentation, rng)
        turn = slice(None, None, -1 if is_rotated else None)
        window = self.crops.select_window(valid[turn, turn], instances[turn, turn], prefers, warp, rng)
        flip, quarters = draw_position(self.crops.augmentation, rng)
        limits = [(part.start, min(part.stop, size), size) for part, size in zip(window, valid.shape, strict=True)]
        if is_rotated:
            limits = [(size - stop, size - start, size) for start, stop, size in limits]
            quarters = (quarters + HALF_ROTATION) % 4
        rows, columns = (slice(start, stop) for start, stop, _ in limits)
        is_valid = bool(np.count_nonzero(valid[rows, columns]) == valid[rows, columns].size)
        return Crop(number, (rows, columns), is_rotated, (flip, quarters), warp, is_valid, rng)

    def _crop(self, crop: Crop) -> Layers:
        """Return the stored layers of a crop, on the device of the tile."""
        layers = {name: layer[:, *crop.window] for name, layer in self._tile(crop.tile).items()}
        bands = [band - 1 for band in self.store.source.bands]
        if bands != list(range(len(layers["image"]))):
            layers["image"] = layers["image"][bands]
        return {name: apply_position(self._pad(layer, crop), crop.position) for name, layer in layers.items()}

    def _copy_to_device(self, crops: Sequence[Layers]) -> list[Layers]:
        """Copy the layers to the GPU through pinned memory, without waiting for the copies."""
        copies: list[Layers] = [{} for _ in crops]
        for name, first in crops[0].items():
            sizes = [layers[name].numel() for layers in crops]  # which differ where crops are scaled
            pinned = torch.empty(sum(sizes), dtype=first.dtype, pin_memory=True)
            for part, layers in zip(pinned.split(sizes), crops, strict=True):
                part.view(layers[name].shape).copy_(layers[name])
            parts = pinned.to(self.device, non_blocking=True).split(sizes)
            for copy, part, layers in zip(copies, parts, crops, strict=True):
                copy[name] = part.view(layers[name].shape)
        return copies

    def _pad(self, pixels: Shaped[Tensor, "c h w"], crop: Crop) -> Shaped[Tensor, "c _ _"]:
        """Pad with zeros on the right and at the bottom of the sensor's frame, unless the crop is scaled or rotated."""
        if not crop.warp.is_identity:
            return pixels
        height, width = (self.crops.crop - size for size in pixels.shape[1:])
        if not height and not width:
            return pixels
        return F.pad(pixels, (width, 0, height, 0) if crop.is_rotated else (0, width, 0, height))

    def _batch(self, crop_layers: Iterable[Layers], crops: Sequence[Crop]) -> dict[str, Tensor]:
        """Return `image`, `mask`, `valid` and the maps of the targets (b, k, crop, crop)."""
        batch = self.maker.empty(len(crops), self.crops.crop, self.crops.crop)
        for i, (layers, crop) in enumerate(zip(crop_layers, crops, strict=True)):
            sample = {name: pixels[i] for name, pixels in batch.items()}
            if crop.warp.is_identity:
                inside = self._inside(crop)
            else:
                layers, inside = self.maker.resample(layers, crop.warp, self.crops.crop, crop.is_valid)
            is_valid = crop.is_valid and inside is None
            change_decibels = self.crops.change_decibels(crop.rng)
            self.maker.fill(sample, layers, crop.position, crop.warp, inside, is_valid, change_decibels)
            changed = change_pixels(self.crops.augmentation, sample, crop.rng, self.maker.nodata)
            for name, pixels in sample.items():
                if changed[name] is not pixels:
                    pixels.copy_(changed[name])
        return batch

    def _inside(self, crop: Crop) -> Bool[Tensor, "1 crop crop"] | None:
        """Return false where the crop extends beyond its tile; None where it does not."""
        height, width = (part.stop - part.start for part in crop.window)
        if min(height, width) == self.crops.crop:
            return None
        inside = torch.ones((1, height, width), dtype=torch.bool, device=self.device)
        return apply_position(self._pad(inside, crop), crop.position)


def free_memory(device: torch.device) -> int:
    """Return the free memory of a GPU, or all memory of the machine, in bytes."""
    if device.type == "cuda":
        gc.collect()  # objects of an earlier stage of the run
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def identity(batch: Any) -> Any:
    """Return the batch, which needs no collation."""
    return batch
