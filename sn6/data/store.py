"""Tiles decoded once into files that are mapped into memory: a crop then costs no decoding."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Shaped
from rich.console import Console
from rich.progress import track

from sn6.data.augment import Sample, cut, rotate_180, whole_tile
from sn6.data.dataset import Choose, Source, is_rotated
from sn6.data.store_layers import StoreTask, decode, map_array, store_tile
from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import tile_path
from sn6.errors import UserError
from sn6.files import exclusive_lock
from sn6.processes import in_processes
from sn6.targets.boundary import PixelWeights

FORMAT = 1  # to be raised whenever the same sources give other files
PIXELS = ("image", "valid")  # the layers that know nothing of the labels
MIN_PIXELS_FOR_POOL = 20_000_000  # pixels that one process stores sooner than others start
log = logging.getLogger(__name__)


class Store:
    """A reader of tiles (see `sn6.data.dataset.Reader`) from arrays on disk, which all processes map and share.

    `<folder>/<product>/<layer>/<image id>.<key>.npy`, each a whole tile in its own frame, with all bands:

    ====================  ===============  ===============================================================
    layer                 dtype
    ====================  ===============  ===============================================================
    image                 uint16           radar: decibels × 512, from 0 to 127.99 dB within 1/1024 dB
    image                 uint8 or uint16  optical: as in the GeoTIFF, exact
    valid                 bool
    instances-<min area>  uint16           exact; int32 where a tile has more than 65,535 footprints
    boundary-<options>    float32          the boundary term, where the loss weighs pixels; exact
    ====================  ===============  ===============================================================

    Layers of other options lie beside one another, so that runs with other bands, orientation, fold or loss share the
    rest. The key is a digest of what the file was made from: size and time of the GeoTIFF, for instances and boundary
    term the tile's footprints too. A changed source gives another name, so a file that is there is right: no index has
    to be kept in step.

    Args:
        archive: where the GeoTIFFs and labels lie
        source: product, bands and labels
        pixel_weights: the loss's
        folder: of the stores of this archive
    """

    def __init__(self, archive: Archive, source: Source, pixel_weights: PixelWeights | None, folder: Path) -> None:
        self.archive = archive
        self.source = source
        self.pixel_weights = pixel_weights
        self.folder = folder / source.product
        self._files: dict[str, dict[str, Path]] = {}  # by image id

    def read(self, tile: Tile, choose: Choose = whole_tile) -> Sample:
        """The part of a tile that `choose` wants; of the files only its pixels are touched.

        Raises:
            UserError: a file is gone or broken
        """
        stored: Sample = self.layers(tile) | {"image_id": tile.image_id}
        if is_rotated(tile, self.source):
            stored = rotate_180(stored)
        part = cut(stored, choose(stored["valid"][0]))
        bands = part.pop("image")[np.asarray(self.source.bands) - 1]
        layers = {key: np.array(part[key]) for key in ("valid", "boundary") if key in part}  # no longer the file's
        instances = part["instances"].astype(np.int32)
        return part | layers | {"image": decode(bands, self.source.product), "instances": instances}

    def layers(self, tile: Tile) -> dict[str, Shaped[np.ndarray, "c h w"]]:
        """The files, mapped, in the tile's own frame: `image` has all bands, in the numbers of the store.

        Raises:
            UserError: a file is gone or broken
        """
        return {layer: map_array(path) for layer, path in self.files(tile).items()}

    def files(self, tile: Tile) -> dict[str, Path]:
        """The file of each layer of a tile, as the sources were when it was asked first."""
        if tile.image_id not in self._files:
            geotiff = tile_path(self.archive.root, tile.split, self.source.product, tile.image_id).stat()
            pixels = f"{FORMAT} {geotiff.st_size} {geotiff.st_mtime_ns}".encode()
            labels = self.archive.labels(tile)
            outlines = [] if labels is None else shapely.to_wkb(labels.polygons)
            of_pixels, of_outlines = digest(pixels), digest(pixels, *outlines)
            self._files[tile.image_id] = {
                layer: self.folder / name / f"{tile.image_id}.{of_pixels if layer in PIXELS else of_outlines}.npy"
                for layer, name in self._layers().items()
            }
        return self._files[tile.image_id]

    def _layers(self) -> dict[str, str]:
        """Layer → its folder."""
        min_area = float(self.source.min_area)
        layers = {"image": "image", "valid": "valid", "instances": f"instances-{min_area}"}
        if self.pixel_weights is not None:
            layers["boundary"] = f"boundary-{min_area}-{self.pixel_weights.w0}-{self.pixel_weights.sigma}"
        return layers

    def prepare(self, tiles: Sequence[Tile]) -> list[str]:
        """Stores what is missing or was made from other sources; one process at a time, on several cores.

        A stop in the midst leaves whole files, and the next call goes on.

        Returns:
            Image ids of the tiles of which something was stored.

        Raises:
            UserError: the folder cannot be written to or has no room, or a tile cannot be read or stored
        """
        if not self._missing(tiles):
            return []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(self.folder / ".lock", f"writes to {self.folder}"):
                jobs = self._missing(tiles)  # less, where another process was first
                self._make(jobs)
                self._remove_outdated(tiles)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); set data.store_root to a folder that can, or "
                "data.store=null to do without a store"
            ) from None
        return [job.tile.image_id for job in jobs]

    def _missing(self, tiles: Sequence[Tile]) -> list[StoreTask]:
        jobs = []
        for tile in {tile.image_id: tile for tile in tiles}.values():
            files = {layer: path for layer, path in self.files(tile).items() if not path.exists()}
            if files:
                what = (self.source.product, self.source.min_area, self.pixel_weights, self.archive.labels(tile))
                jobs.append(StoreTask(self.archive.root, tile, *what, files))
        return jobs

    def _make(self, jobs: Sequence[StoreTask]) -> None:
        size = sum(job.size for job in jobs)
        check_disk_space(self.folder, size)
        made = in_processes(store_tile, jobs, is_worth_it=sum(job.pixels for job in jobs) >= MIN_PIXELS_FOR_POOL)
        console = Console(stderr=True)
        for _ in track(made, f"storing {len(jobs)} tiles", total=len(jobs), console=console, transient=True):
            pass
        if jobs:
            log.info("stored %d tiles in %s, %.1f GB", len(jobs), self.folder, size / 1e9)

    def _remove_outdated(self, tiles: Sequence[Tile]) -> None:
        """Files of the same tiles and options that were made from other sources, or were never finished."""
        right = {path for tile in tiles for path in self.files(tile).values()}
        image_ids = {tile.image_id for tile in tiles}
        for folder in {path.parent for path in right}:
            for path in folder.iterdir():
                if path not in right and path.name.removeprefix(".").partition(".")[0] in image_ids:
                    path.unlink()


def store_folder(root: Path, store_root: Path | None) -> Path:
    """Where the stores of an archive lie: beside it, or in a folder of its own under `store_root`."""
    if store_root is None:
        return root / ".sn6" / "store"
    return store_root / f"{root.resolve().name}-{digest(bytes(root.resolve()))}"


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def check_disk_space(folder: Path, size: int) -> None:
    """Raises a UserError where `size` bytes do not fit."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder} takes {size / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free; make room, set "
            "data.store_root to another disk, or data.store=null to do without a store"
        )
