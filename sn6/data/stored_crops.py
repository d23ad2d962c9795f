"""Training crops from a store, cut a batch at a time in the process and on the device that use them.

Handing a crop from a worker process to the training takes several times as long as to cut it.
"""

import gc
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Shaped
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from sn6.data.augment import Position, Window, apply_position, crop_window, draw_position
from sn6.data.dataset import CropDataset
from sn6.data.store import Store
from sn6.data.store_layers import steps_per_unit
from sn6.targets.boundary import class_weights

MEMORY_FRACTION = 0.5  # of the free memory that tiles may take; the network has the rest
HALF_TURN = 2  # in quarters
Layers = dict[str, Shaped[Tensor, "..."]]  # `image`, `valid`, `mask` and, where the loss weighs pixels, `boundary`
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """Where a crop lies.

    Attributes:
        tile: its place in the list
        window: rows and columns, in the tile's own frame
        turned: whether the tile is turned by 180°
        position: from the tile's own frame to the crop's
        complete: whether it is valid everywhere
    """

    tile: int
    window: Window
    turned: bool
    position: Position
    complete: bool


class StoredCrops(Dataset):
    """The batches of a CropDataset over a store.

    Place, flip and turn are drawn by the same functions of (seed, epoch, draw), and the same arithmetic follows. The
    tiles are mapped from disk, or held by the device (see `hold`).

    Args:
        crops: what to make
        store: that has the tiles of `crops`
        device: where the batches are made
    """

    def __init__(self, crops: CropDataset, store: Store, device: torch.device) -> None:
        self.crops = crops
        self.store = store
        self.device = device
        self.tiles: dict[int, Layers] = {}  # those that were asked for
        self.valid: dict[int, Bool[np.ndarray, "h w"]] = {}  # of them, as mapped: the places are drawn by it
        self.held = False
        # Numbers of the store are the product's units times a power of two: both round alike.
        per_unit, statistics = steps_per_unit(store.source.product), crops.tiles.statistics
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] * per_unit
            for values in (statistics.mean, statistics.std)
        )

    def hold(self) -> None:
        """Has the device hold the tiles; where they have no room beside a network, a line in the log tells so."""
        numbers = range(len(self.crops.tiles))
        size = sum(layer.nbytes for number in numbers for layer in self._tile(number).values())
        room = int(MEMORY_FRACTION * free_memory(self.device))
        if size > room:
            log.warning(
                "the training tiles take %.1f GB, and %s has room for %.1f GB beside a network; the crops come from "
                "the store on disk",
                *(size / 1e9, self.device, room / 1e9),
            )
            return
        self.held = True
        for number in track(numbers, f"moving tiles to {self.device}", console=Console(stderr=True), transient=True):
            layers = self._tile(number) | {"mask": unsigned(self._tile(number)["mask"] != 0)}  # a byte a pixel
            self.tiles[number] = {name: torch.clone(layer).to(self.device) for name, layer in layers.items()}

    def __len__(self) -> int:
        return len(self.crops)

    def __getitems__(self, draws: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """A batch of the samples that a TileDataset describes; a DataLoader asks for it at once."""
        crops = [self._drawn(*draw) for draw in draws]
        cut = (self._cut(crop) for crop in crops)  # one at a time, which leaves the last one in the processor's cache
        batch = self._batch(cut if self.held or self.device.type != "cuda" else self._sent(list(cut)), crops)
        names = [self.crops.tiles.tiles[crop.tile].image_id for crop in crops]
        return batch | {"image_id": names, "index": torch.tensor([crop.tile for crop in crops], device=self.device)}

    def _tile(self, number: int) -> Layers:
        """The layers of a tile in its own frame, mapped if the device does not hold them."""
        if number not in self.tiles:
            stored = self.store.layers(self.crops.tiles.tiles[number])
            self.valid[number] = stored["valid"][0]
            layers = {"mask" if name == "instances" else name: array for name, array in stored.items()}
            self.tiles[number] = {
                # the bits of 16-bit numbers: torch can do more with signed ones
                name: torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
                for name, array in layers.items()
            }
        return self.tiles[number]

    def _drawn(self, epoch: int, draw: int) -> Crop:
        number, rng = self.crops.drawn(epoch, draw)
        self._tile(number)
        turned, valid = self.crops.tiles.turned(number), self.valid[number]
        window = crop_window(valid[::-1, ::-1] if turned else valid, self.crops.crop, rng)
        flip, quarters = draw_position(self.crops.augmentation, rng)
        ends = [(side.start, min(side.stop, size), size) for side, size in zip(window, valid.shape, strict=True)]
        if turned:
            ends = [(size - stop, size - start, size) for start, stop, size in ends]
            quarters = (quarters + HALF_TURN) % 4
        rows, columns = (slice(start, stop) for start, stop, _ in ends)
        complete = bool(np.count_nonzero(valid[rows, columns]) == self.crops.crop**2)
        return Crop(number, (rows, columns), turned, (flip, quarters), complete)

    def _cut(self, crop: Crop) -> Layers:
        """The crop's layers as they are stored, where the tile is."""
        cut = {name: layer[:, *crop.window] for name, layer in self._tile(crop.tile).items()}
        bands = [band - 1 for band in self.store.source.bands]
        if bands != list(range(len(cut["image"]))):
            cut["image"] = cut["image"][bands]
        return {name: apply_position(self._padded(layer, crop), crop.position) for name, layer in cut.items()}

    def _sent(self, cut: Sequence[Layers]) -> list[Layers]:
        """Copies on the GPU, from pinned memory, so that nobody waits for them."""
        sent = {}
        for name, layer in cut[0].items():
            pinned = torch.empty((len(cut), *layer.shape), dtype=layer.dtype, pin_memory=True)
            sent[name] = torch.stack([one[name] for one in cut], out=pinned).to(self.device, non_blocking=True)
        return [{name: layers[i] for name, layers in sent.items()} for i in range(len(cut))]

    def _padded(self, pixels: Shaped[Tensor, "c h w"], crop: Crop) -> Shaped[Tensor, "c crop crop"]:
        """Extended by zeros, which lie to the right and below when the tile is turned."""
        height, width = (self.crops.crop - size for size in pixels.shape[1:])
        if not height and not width:
            return pixels
        return F.pad(pixels, (width, 0, height, 0) if crop.turned else (0, width, 0, height))

    def _batch(self, cut: Iterable[Layers], crops: Sequence[Crop]) -> dict[str, Tensor]:
        """`image`, `mask`, `valid` and `weight` (b, c, crop, crop)."""
        tiles, shape = self.crops.tiles, (len(crops), 1, self.crops.crop, self.crops.crop)
        empty = partial(torch.empty, device=self.device)
        image = empty((len(crops), len(self.mean), *shape[2:]), dtype=torch.float32)
        mask, valid = empty(shape, dtype=torch.float32), empty(shape, dtype=torch.bool)
        batch = {"image": image, "mask": mask, "valid": valid}
        if tiles.pixel_weights is not None:
            assert tiles.statistics.building_fraction is not None
            background, building = class_weights(tiles.statistics.building_fraction)
            batch["weight"] = empty(shape, dtype=torch.float32)
        for i, (layers, crop) in enumerate(zip(cut, crops, strict=True)):
            image[i].copy_(unsigned(layers["image"])).sub_(self.mean).div_(self.std)
            mask[i].copy_(unsigned(layers["mask"])).clamp_(max=1)
            valid[i].copy_(layers["valid"])
            if tiles.pixel_weights is not None:
                batch["weight"][i].copy_(torch.where(mask[i] > 0, building, background)).add_(layers["boundary"])
            if not crop.complete:
                inside = self._inside(crop)
                image[i].mul_(unsigned(valid[i]).float() if tiles.nodata == "zero" else inside)
                if tiles.pixel_weights is not None:
                    batch["weight"][i].mul_(inside)
        return batch

    def _inside(self, crop: Crop) -> Shaped[Tensor, "1 crop crop"]:
        """1 on the tile, 0 where the crop is larger than it."""
        height, width = (side.stop - side.start for side in crop.window)
        return apply_position(self._padded(torch.ones((1, height, width), device=self.device), crop), crop.position)


def unsigned(stored: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
    """Stored numbers as they are meant: 16 bits from 0 up. Flags become 0 and 1, of which floats are made faster."""
    types = {torch.int16: torch.uint16, torch.bool: torch.uint8}
    return stored.view(types.get(stored.dtype, stored.dtype))


def free_memory(device: torch.device) -> int:
    """Bytes that nobody holds on a GPU; of the machine's memory all."""
    if device.type == "cuda":
        gc.collect()  # what an earlier stage of the run held
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def identity(batch: Any) -> Any:
    """The batch: there is nothing left to collate."""
    return batch
