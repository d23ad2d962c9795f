"""Training tiles that live in the memory of the device, where their crops are made a batch at a time."""

import gc
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from sn6.data.augment import Position, Sample, Window, crop_window, draw_position, move, pad_to
from sn6.data.boundary import class_weights
from sn6.data.dataset import CropDataset
from sn6.data.layers import steps
from sn6.data.store import Store

SHARE = 0.5  # of the free memory that tiles may take; the network has the rest
log = logging.getLogger(__name__)


def resident_crops(crops: CropDataset, store: Store, device: torch.device) -> "ResidentCrops | None":
    """The crops in the device's memory; None, with a line in the log, where they have no room there."""
    stored = [store.stored(tile) for tile in crops.tiles.tiles]
    height, width = common_size(stored, crops.crop)
    size = len(stored) * height * width * sum(array.itemsize * len(array) for array in layers_of(stored[0]).values())
    room = int(SHARE * free_memory(device))
    if size > room:
        log.warning(
            "the training tiles take %.1f GB, and %s has room for %.1f GB beside a network; the crops come from the "
            "store on disk",
            *(size / 1e9, device, room / 1e9),
        )
        return None
    return ResidentCrops(crops, stored, store.source.product, device)


class ResidentCrops(Dataset):
    """The crops of a CropDataset over a store, in batches, from tensors on the device.

    Place, flip and turn are drawn by the same functions of (seed, epoch, draw). The pixels are gathered and normalised
    on the device; the batches are those of the CropDataset to the rounding of float32.

    Args:
        crops: what to make
        stored: the tiles of `crops` as their store has them
        product: of the store
        device: that holds the tensors and makes the batches
    """

    def __init__(self, crops: CropDataset, stored: Sequence[Sample], product: str, device: torch.device) -> None:
        self.crops = crops
        self.device = device
        self.steps = steps(product)
        self.valid = [sample["valid"][0] for sample in stored]  # on disk: the places are drawn by them
        self.sizes = torch.tensor([valid.shape for valid in self.valid], device=device)
        self.grid = np.empty(common_size(stored, crops.crop), dtype=np.int8)
        self.layers: dict[str, Tensor] = {}  # (n, c, pixels)
        console = Console(stderr=True)
        for i, sample in enumerate(track(stored, f"moving tiles to {device}", console=console, transient=True)):
            for name, array in layers_of(sample).items():
                flat = torch.from_numpy(pad_to(array, self.grid.shape)).flatten(1)  # (c, pixels)
                if name not in self.layers:
                    self.layers[name] = torch.empty((len(stored), *flat.shape), dtype=flat.dtype, device=device)
                self.layers[name][i] = flat

    def __len__(self) -> int:
        return len(self.crops)

    def __getitems__(self, draws: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """A batch of the samples that a TileDataset describes; a DataLoader asks for it at once."""
        tiles, chosen, places = self.crops.tiles.tiles, [], []
        for epoch, draw in draws:
            tile, rng = self.crops.drawn(epoch, draw)
            window = crop_window(self.valid[tile], self.crops.crop, rng)
            chosen.append(tile)
            places.append(self._place(window, draw_position(self.crops.augmentation, rng)))
        index = torch.tensor(chosen, device=self.device)
        place = self._pixels(torch.tensor(places, device=self.device))  # (b, crop, crop)
        batch = self._normalised(index, place)
        return batch | {"image_id": [tiles[tile].image_id for tile in chosen], "index": index}

    def _place(self, window: Window, position: Position) -> tuple[int, ...]:
        """Number of the crop's first pixel in its tile, and how far it is to the next one below and to the right.

        A flipped and turned view of the grid has them in its address and strides.
        """
        view = move(self.grid[window], position)
        return view.ctypes.data - self.grid.ctypes.data, *view.strides

    def _pixels(self, places: Int64[Tensor, "b 3"]) -> Int64[Tensor, "b crop crop"]:
        """The numbers of all pixels of the crops."""
        steps = torch.arange(self.crops.crop, device=self.device)
        first, down, right = places.T[..., None, None]
        return first + down * steps[:, None] + right * steps

    def _normalised(self, index: Int64[Tensor, " b"], place: Int64[Tensor, "b crop crop"]) -> dict[str, Tensor]:
        """`image`, `mask`, `valid` and `weight` (b, c, crop, crop)."""
        tiles, statistics = self.crops.tiles, self.crops.tiles.statistics

        def gather(layer: str, channels: Sequence[int] = (0,)) -> Tensor:
            channel = torch.tensor(channels, device=self.device)[:, None, None]
            return self.layers[layer][index[:, None, None, None], channel, place[:, None]]

        def per_band(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)[:, None, None]

        mask, valid = gather("mask"), gather("valid")
        height, width = self.sizes[index].T[..., None, None]
        columns = self.grid.shape[1]
        inside = ((place // columns < height) & (place % columns < width))[:, None]  # of a tile smaller than the crop
        image = (gather("image", [band - 1 for band in tiles.source.bands]).int() & 0xFFFF).float() / self.steps
        image = (image - per_band(statistics.mean)) / per_band(statistics.std)
        batch = {"image": torch.where(inside if tiles.nodata == "as_is" else valid, image, 0.0)}
        if tiles.pixel_weights is not None:
            assert statistics.building_fraction is not None
            background, building = class_weights(statistics.building_fraction)
            weight = torch.where(mask, building, background) + gather("boundary")
            batch["weight"] = torch.where(inside, weight, 0.0)
        return batch | {"mask": mask.float(), "valid": valid}


def layers_of(sample: Sample) -> dict[str, Shaped[np.ndarray, "c h w"]]:
    """What the device holds of a stored tile; 16-bit numbers as int16 of the same bits, which torch can gather."""
    image = sample["image"]
    layers = {"image": image.view(np.int16) if image.dtype == np.uint16 else image, "valid": sample["valid"]}
    boundary = {"boundary": sample["boundary"]} if "boundary" in sample else {}
    return layers | {"mask": sample["instances"] > 0} | boundary


def common_size(stored: Sequence[Sample], crop: int) -> tuple[int, int]:
    """Height and width of the tensors: of the largest tile, and of a crop."""
    shapes = np.array([sample["valid"].shape[1:] for sample in stored])
    height, width = np.maximum(shapes.max(axis=0), crop)
    return int(height), int(width)


def free_memory(device: torch.device) -> int:
    """Bytes that nobody holds on a GPU; of the machine's memory all."""
    if device.type == "cuda":
        gc.collect()  # what an earlier stage of the run held
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def as_it_is(batch: Any) -> Any:
    """The batch: there is nothing left to collate."""
    return batch
