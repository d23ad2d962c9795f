"""Store decoded tiles in files that are mapped into memory, so that a crop needs no decoding."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Shaped

from sn6.data.augment import Sample, crop_sample, rotate_180, whole_tile
from sn6.data.reader import NO_TARGETS, SelectWindow
from sn6.data.source import Source, is_rotated
from sn6.data.store_layers import StoreTask, decode, map_array, store_tile
from sn6.datasets.declaration import DataSet, Tile
from sn6.errors import UserError, counted
from sn6.files import exclusive_lock, require_disk_space, shown_size
from sn6.processes import in_processes
from sn6.progress import track
from sn6.targets.target import Target

FORMAT = 1  # increase it whenever the same sources give other files
TARGET_FORMAT = 2  # the same for the layers of targets alone
IMAGE_LAYERS = ("image", "valid")  # layers that do not depend on the labels
MIN_SIZE_FOR_POOL = 20_000_000  # one process stores fewer pixels in less time than other processes take to start
log = logging.getLogger(__name__)


class Store:
    """Read tiles (see `sn6.data.reader.Reader`) from arrays on disk, which all processes map and share.

    Each file `<folder>/<product>/<layer>/<image id>.<key>.npy` is a whole tile in its own frame, with all bands:

    ====================  ===============  ===============================================================
    layer                 dtype
    ====================  ===============  ===============================================================
    image                 uint16           SAR: decibels × 512, from 0 to 127.99 dB within 1/1024 dB
    image                 uint8 or uint16  optical: as in the GeoTIFF, exact
    valid                 bool
    instances-<min area>  uint16           exact; int32 where a tile has more than 65,535 footprints
    <class>-<digest>      uint8, float32   the layer of a target, of its class and fields and the min area, see
                                           `sn6.targets.target.Target.encode`
    ====================  ===============  ===============================================================

    Layers with other options have folders of their own, so that runs with other bands, orientation, fold or loss share
    the rest. The key is a digest of what the file was made from: size and time of the GeoTIFF and its sidecar
    files and the rule that reads them, for instances and targets also the footprints and heights of the tile. A changed
    source gives another name, so that an existing file is always up to date, without an index to maintain.

    Args:
        data_set: of the images and labels
        source: product, bands and labels
        folder: folder of the stores of this archive
        targets: by name
    """

    def __init__(
        self, data_set: DataSet, source: Source, folder: Path, targets: Mapping[str, Target] = NO_TARGETS
    ) -> None:
        self.data_set = data_set
        self.source = source
        self.targets = targets
        self.folder = folder / source.product.name
        self._files: dict[str, dict[str, Path]] = {}  # by image id

    def read(self, tile: Tile, select_window: SelectWindow = whole_tile) -> Sample:
        """Read the window of a tile that `select_window` returns; only its pixels are read from the files.

        Raises:
            UserError: a file is missing or broken
        """
        stored: Sample = self.layers(tile) | {"image_id": tile.image_id}
        if is_rotated(self.data_set, tile, self.source):
            stored = rotate_180(stored)
        crop = crop_sample(stored, select_window(stored["valid"][0], stored["instances"][0]))
        bands = crop.pop("image")[np.asarray(self.source.bands) - 1]
        copies = {key: np.array(crop[key]) for key in ("valid", *self.targets)}  # not mapped any more
        instances = crop["instances"].astype(np.int32)
        return crop | copies | {"image": decode(bands, self.source.product), "instances": instances}

    def layers(self, tile: Tile) -> dict[str, Shaped[np.ndarray, "c h w"]]:
        """Map the files of a tile, in its own frame: `image` has all bands, as stored.

        Raises:
            UserError: a file is missing or broken
        """
        return {layer: map_array(path) for layer, path in self.files(tile).items()}

    def files(self, tile: Tile) -> dict[str, Path]:
        """Return the file of each layer of a tile; its key is that of the sources at the first call."""
        if tile.image_id not in self._files:
            state = self.data_set.fingerprint(tile, self.source.product.name)
            pixels = " ".join(map(str, (FORMAT, *state))).encode()
            labels = self.data_set.labels(tile)
            buildings = [] if labels is None else [*shapely.to_wkb(labels.polygons), labels.heights.tobytes()]
            if labels is not None and labels.classes is not None:
                buildings.append(labels.classes.tobytes())
            pixel_key, label_key = digest(pixels), digest(pixels, *buildings)
            self._files[tile.image_id] = {
                layer: self.folder / name / f"{tile.image_id}.{pixel_key if layer in IMAGE_LAYERS else label_key}.npy"
                for layer, name in self._layers().items()
            }
        return self._files[tile.image_id]

    def _layers(self) -> dict[str, str]:
        """Return the folder name of each layer."""
        min_area = float(self.source.min_area)
        layers = {"image": "image", "valid": "valid", "instances": f"instances-{min_area}"}
        for name, target in self.targets.items():
            key = digest(f"{TARGET_FORMAT} {target.fingerprint} {min_area}".encode())
            layers[name] = f"{type(target).__name__}-{key}"
        return layers

    def prepare(self, tiles: Sequence[Tile]) -> list[str]:
        """Store what is missing or was made from other sources; one process at a time, on several cores.

        If it is interrupted, the files written so far are complete, and the next call stores the rest.

        Returns:
            Image ids of the tiles of which a layer was stored.

        Raises:
            UserError: the folder cannot be written, the disk has too little space, or a tile cannot be read or stored
        """
        if not self._missing(tiles):
            return []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(self.folder / ".lock", f"writes to {self.folder}"):
                tasks = self._missing(tiles)  # fewer, where another process has stored them meanwhile
                self._store(tasks)
                self._remove_outdated(tiles)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); set data.store_root to a writable folder, or "
                "data.store=null to run without a store",
                kind="unwritable",
                key=self.folder,
            ) from None
        return [task.tile.image_id for task in tasks]

    def _missing(self, tiles: Sequence[Tile]) -> list[StoreTask]:
        tasks = []
        for tile in {tile.image_id: tile for tile in tiles}.values():
            files = {layer: path for layer, path in self.files(tile).items() if not path.exists()}
            if files:
                options = (self.source.product, self.source.min_area, self.targets, self.data_set.labels(tile))
                tasks.append(StoreTask(self.data_set, tile, *options, files))
        return tasks

    def _store(self, tasks: Sequence[StoreTask]) -> None:
        size = sum(task.size for task in tasks)
        advice = "free some space, set data.store_root to another disk, or set data.store=null to run without a store"
        require_disk_space(self.folder, size, "the store", advice)
        is_worth_it = sum(task.pixels for task in tasks) >= MIN_SIZE_FOR_POOL
        stored = in_processes(store_tile, tasks, is_worth_it=is_worth_it)
        for _ in track(stored, f"storing {counted(len(tasks), 'tile')}, {shown_size(size)}", len(tasks)):
            pass
        if tasks:
            log.info("tiles stored in %s: %d (%s)", self.folder, len(tasks), shown_size(size))

    def _remove_outdated(self, tiles: Sequence[Tile]) -> None:
        """Remove files of these tiles and options that were made from other sources, or were never finished."""
        current = {path for tile in tiles for path in self.files(tile).values()}
        image_ids = {tile.image_id for tile in tiles}
        for folder in {path.parent for path in current}:
            for path in folder.iterdir():
                if path not in current and path.name.removeprefix(".").partition(".")[0] in image_ids:
                    path.unlink()


def store_folder(root: Path, store_root: Path | None) -> Path:
    """Return the folder of the stores of an archive: in the archive, or a folder of its own in `store_root`."""
    if store_root is None:
        return root / ".sn6" / "store"
    return store_root / f"{root.resolve().name}-{digest(bytes(root.resolve()))}"


def digest(*parts: bytes) -> str:
    """Return a digest of 16 hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
