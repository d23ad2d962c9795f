"""A whole archive inspected: every tile in several processes, and what shows when all are known."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sn6.datasets.archive import Archive, Tile
from sn6.datasets.layout import SPLIT_NAMES, Split, labels_path, test_truth_path
from sn6.datasets.statistics import save_statistics
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.formats.challenge_csv import read_labels
from sn6.inspection.faults import Fault
from sn6.inspection.images import Image
from sn6.inspection.index import index_of
from sn6.inspection.tiles import Inspected, Task, inspect
from sn6.processes import in_processes

RADAR = "SAR-Intensity"
MIN_TILES_FOR_POOL = 64  # tiles that one process reads sooner than others start
APART = 0.5  # metres by which the corners of a tile's products may differ

Track = Callable[[Iterable[Inspected], int], Iterable[Inspected]]


@dataclass(frozen=True, eq=False)
class Inspection:
    """What is known of an archive.

    Attributes:
        root: its folder
        orientations: strip → 0 or 1
        tiles: all, those of the split "train" first
        faults: all
    """

    root: Path
    orientations: dict[str, int]
    tiles: list[Inspected]
    faults: list[Fault]

    @cached_property
    def labelled(self) -> dict[Split, list[Tile]]:
        """The tiles of each split that a training takes: with radar, where there is any, and with labels."""
        main = main_product(self.tiles)
        return {
            split: [
                self.tile(t, main)
                for t in self.tiles
                if t.split == split and main in t.images and t.buildings is not None
            ]
            for split in SPLIT_NAMES
        }

    def tile(self, inspected: Inspected, product: str) -> Tile:
        """As the archive tells it."""
        strip, image = inspected.strip, inspected.images[product]
        orientation = self.orientations.get(strip)
        return Tile(inspected.image_id, inspected.split, strip, orientation, image.bounds, tuple(inspected.images))


def main_product(tiles: Sequence[Inspected]) -> str:
    """The radar, or in an archive without it the product that most tiles have."""
    having = Counter(product for tile in tiles for product in tile.images)
    return RADAR if RADAR in having or not having else having.most_common(1)[0][0]


def inspect_archive(root: Path, workers: int | None, track: Track) -> Inspection:
    """Reads every file of an archive, and keeps the sums of its training tiles beside it.

    Args:
        root: the folder that holds `train/AOI_11_Rotterdam`
        workers: processes; None for one a core, or one in all where there are few tiles
        track: goes through the tiles as they come, with their number, and shows how far it is

    Raises:
        UserError: `root` is not an archive
    """
    archive = Archive(root)
    index = index_of(root)
    orientations, faults = orientations_of(archive)
    faults += index.faults
    tasks = []
    tables: dict[Split, Path] = {"train": labels_path(root), "test_public": test_truth_path(root)}
    for split, path in tables.items():
        labels, found = table_of_labels(path)
        ids = [image_id for of, image_id in index.files if of == split]
        faults += found + [
            Fault("unknown tile", image_id, f"{path} has labels of it, and there is no image")
            for image_id in sorted(set(labels) - set(ids))
        ]
        tasks += [Task(root, split, i, index.files[split, i], labels.get(i)) for i in ids]
    reading = in_processes(
        inspect, tasks, is_worth_it=workers is not None or len(tasks) >= MIN_TILES_FOR_POOL, processes=workers
    )
    tiles = list(track(reading, len(tasks)))
    faults += [fault for tile in tiles for fault in tile.faults]
    faults += [*without_orientation(tiles, orientations), *other_sizes(tiles), *apart(tiles), *identical(tiles)]
    for product in {product for tile in tiles for product in tile.images}:
        images = {t.image_id: t.images[product] for t in tiles if t.split == "train" and product in t.images}
        save_statistics(root, product, {name: image.sums for name, image in images.items() if image.sums is not None})
    return Inspection(root, orientations, tiles, faults)


def orientations_of(archive: Archive) -> tuple[dict[str, int], list[Fault]]:
    """Strip → orientation, and what is wrong with the table."""
    try:
        return archive.orientations, []
    except UserError as error:
        return {}, [Fault("orientation", "SAR_orientations.txt", str(error))]


def table_of_labels(path: Path) -> tuple[dict[str, Labels], list[Fault]]:
    """Image id → labels of a CSV, and what is wrong with it."""
    if not path.exists():
        return {}, []
    try:
        return read_labels(path), []
    except UserError as error:
        return {}, [Fault("labels", str(path), str(error))]


def without_orientation(tiles: Sequence[Inspected], orientations: dict[str, int]) -> Iterator[Fault]:
    """Radar strips that the table lacks."""
    strips = Counter(tile.strip for tile in tiles if RADAR in tile.images and tile.strip not in orientations)
    for strip, count in strips.items():
        told = f"SAR_orientations.txt lacks the strip of {count} tiles; add a line '{strip} 0' (from the north) or 1"
        yield Fault("orientation", strip, told)


def other_sizes(tiles: Sequence[Inspected]) -> Iterator[Fault]:
    """Images of another size than most of their product."""
    sizes: defaultdict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for image in images_of(tiles):
        sizes[image.product][image.shape] += 1
    for image in images_of(tiles):
        usual = sizes[image.product].most_common(1)[0][0]
        if image.shape != usual:
            told = f"{image.shape[1]} × {image.shape[0]} pixels, most have {usual[1]} × {usual[0]}"
            yield Fault("size", str(image.path), told)


def apart(tiles: Sequence[Inspected]) -> Iterator[Fault]:
    """Images whose upper left corner is not that of their tile's first product."""
    for tile in tiles:
        images = list(tile.images.values())
        for first, image in zip(images[:1] * len(images), images, strict=True):
            east, north = image.bounds[0] - first.bounds[0], image.bounds[3] - first.bounds[3]
            if max(abs(east), abs(north)) > APART:
                told = f"{east:.1f} m east and {north:.1f} m north of {first.product}"
                yield Fault("place", str(image.path), told)


def identical(tiles: Sequence[Inspected]) -> Iterator[Fault]:
    """Images with the pixels of another one."""
    first: dict[tuple[str, str], Path] = {}
    for image in images_of(tiles):
        other = first.setdefault((image.product, image.digest), image.path)
        if other != image.path and image.valid:
            yield Fault("identical pixels", str(image.path), f"{other} has the same pixels")


def images_of(tiles: Sequence[Inspected]) -> Iterator[Image]:
    """All images of all tiles."""
    return (image for tile in tiles for image in tile.images.values())
