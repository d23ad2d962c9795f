"""Inspect a whole archive: every tile in several processes, then the faults that need all tiles."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sn6.datasets.declaration import DataSet, Split, Tile
from sn6.datasets.headers import position_fault
from sn6.datasets.spacenet6 import PRODUCTS, SpaceNet6, labels_path, test_truth_path
from sn6.datasets.statistics import save_statistics
from sn6.errors import UserError, counted
from sn6.footprints import Labels
from sn6.formats.challenge_csv import read_labels
from sn6.inspection.coarse import histogram_of
from sn6.inspection.faults import Fault
from sn6.inspection.histograms import Histogram
from sn6.inspection.images import Image
from sn6.inspection.index import Index, list_files
from sn6.inspection.tiles import InspectedTile, Task, inspect_tile
from sn6.processes import in_processes
from sn6.progress import track

MIN_TILES_FOR_POOL = 64  # one process reads fewer tiles sooner than other processes start


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of the inspection of an archive.

    Attributes:
        data_set: the archive
        orientations: strip → 0 (imaged from the north) or 1 (from the south)
        tiles: all tiles, those of the split "train" first
        histograms: product → values of the training tiles
        faults: all faults
    """

    data_set: DataSet
    orientations: dict[str, int]
    tiles: list[InspectedTile]
    histograms: dict[str, Histogram]
    faults: list[Fault]

    @cached_property
    def labelled(self) -> dict[Split, list[Tile]]:
        """Return the tiles of each split that training can use: with labels, and with radar if there is any."""
        main = main_product(self.tiles, self.data_set.radar)
        return {
            split: [
                self.as_tile(tile, main)
                for tile in self.tiles
                if tile.split == split and main in tile.images and tile.buildings is not None
            ]
            for split in self.data_set.splits
        }

    def as_tile(self, inspected: InspectedTile, product: str) -> Tile:
        """Return the tile of the archive, with the bounds of its `product`."""
        strip, image = inspected.strip, inspected.images[product]
        orientation = self.orientations.get(strip)
        return Tile(inspected.image_id, inspected.split, strip, orientation, image.bounds, tuple(inspected.images))


def main_product(tiles: Sequence[InspectedTile], radar: str | None) -> str:
    """Return the radar product; where there is none, the product that most tiles have."""
    counts = Counter(product for tile in tiles for product in tile.images)
    return radar if radar is not None and (radar in counts or not counts) else counts.most_common(1)[0][0]


def inspect_archive(root: Path, workers: int | None) -> Inspection:
    """Read every file of an archive, and cache the statistics of its training tiles.

    Args:
        root: of an archive in the layout of SpaceNet 6
        workers: number of processes; None for one per core, or a single one for few tiles

    Raises:
        UserError: `root` is not an archive
    """
    archive = SpaceNet6(root)
    index = list_files(root)
    orientations, faults = read_orientations(archive)
    tasks, label_faults = make_tasks(root, index)
    faults += [*index.faults, *label_faults]
    is_worth_it = workers is not None or len(tasks) >= MIN_TILES_FOR_POOL
    tiles: list[InspectedTile] = []
    histograms: dict[str, Histogram] = {}
    inspected = in_processes(inspect_tile, tasks, is_worth_it, processes=workers)
    for tile, of_tile in track(inspected, f"reading {counted(len(tasks), 'tile')}", len(tasks)):
        tiles.append(tile)
        faults += tile.faults
        for product, histogram in of_tile.items():
            histograms.setdefault(product, histogram_of(PRODUCTS[product])).merge(histogram)
    faults += [*unknown_strips(tiles, orientations, archive.radar), *other_sizes(tiles), *other_positions(tiles)]
    faults += cross_tile_faults(tiles)
    cache_statistics(root, tiles)
    return Inspection(archive, orientations, tiles, histograms, faults)


def cross_tile_faults(tiles: Sequence[InspectedTile]) -> list[Fault]:
    """Return the faults that a comparison of the tiles finds in any data set."""
    return [*identical(tiles), *misplaced_labels(tiles), *without_buildings(tiles)]


def read_orientations(archive: SpaceNet6) -> tuple[dict[str, int], list[Fault]]:
    """Read strip → orientation, and the fault of a malformed table."""
    try:
        return archive.orientations, []
    except UserError as error:
        return {}, [Fault("orientation", "SAR_orientations.txt", str(error))]


def make_tasks(root: Path, index: Index) -> tuple[list[Task], list[Fault]]:
    """Pair the files of each tile with its labels in the CSV of its split."""
    tasks: list[Task] = []
    faults: list[Fault] = []
    tables: dict[Split, Path] = {"train": labels_path(root), "test_public": test_truth_path(root)}
    for split, path in tables.items():
        labels: dict[str, Labels] = {}
        if path.exists():
            try:
                labels = read_labels(path)
            except UserError as error:
                faults.append(Fault("labels", str(path), str(error)))
        image_ids = [image_id for of, image_id in index.files if of == split]
        unknown = sorted(set(labels) - set(image_ids))
        faults += [
            Fault("unknown tile", image_id, f"{path} has labels for this tile, but there is no image")
            for image_id in unknown
        ]
        tasks += [Task(root, split, one, index.files[split, one], labels.get(one)) for one in image_ids]
    return tasks, faults


def cache_statistics(root: Path, tiles: Sequence[InspectedTile]) -> None:
    """Cache the statistics of the training tiles for the normalisation."""
    training = [tile for tile in tiles if tile.split == "train"]
    for product in {product for tile in tiles for product in tile.images}:
        measured = {tile.image_id: tile.images[product].statistics for tile in training if product in tile.images}
        save_statistics(root, product, measured)


def unknown_strips(tiles: Sequence[InspectedTile], orientations: dict[str, int], radar: str | None) -> Iterator[Fault]:
    """Find radar strips that are not in the table of orientations."""
    strips = Counter(tile.strip for tile in tiles if radar in tile.images and tile.strip not in orientations)
    for strip, count in strips.items():
        message = (
            f"SAR_orientations.txt lacks this strip ({counted(count, 'tile')}); "
            f"add a line '{strip} 0' (imaged from the north) or '{strip} 1' (from the south)"
        )
        yield Fault("orientation", strip, message)


def other_sizes(tiles: Sequence[InspectedTile]) -> Iterator[Fault]:
    """Find images whose size is not the most common one of their product."""
    sizes: defaultdict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for image in all_images(tiles):
        sizes[image.product][image.shape] += 1
    for image in all_images(tiles):
        usual = sizes[image.product].most_common(1)[0][0]
        if image.shape != usual:
            message = f"{image.shape[1]} × {image.shape[0]} pixels; most images have {usual[1]} × {usual[0]}"
            yield Fault("size", str(image.path), message)


def other_positions(tiles: Sequence[InspectedTile]) -> Iterator[Fault]:
    """Find images whose upper left corner is not that of their tile's first product."""
    for tile in tiles:
        images = list(tile.images.values())
        for image in images[1:]:
            fault = position_fault(image.bounds, images[0].bounds, images[0].product)
            if fault is not None:
                yield Fault(fault.kind, str(image.path), fault.message)


def identical(tiles: Sequence[InspectedTile]) -> Iterator[Fault]:
    """Find images with the same pixels as another image of their product."""
    first: dict[tuple[str, str], Path] = {}
    for image in all_images(tiles):
        other = first.setdefault((image.product, image.digest), image.path)
        if other != image.path and image.valid:
            yield Fault("identical pixels", str(image.path), f"{other} has the same pixels")


def misplaced_labels(tiles: Sequence[InspectedTile]) -> Iterator[Fault]:
    """Find out whether the training tiles have footprints, and all are outside their tiles."""
    training = [tile for tile in tiles if tile.split == "train"]
    outside = sum(tile.outside for tile in training)
    if outside and outside == sum(tile.buildings or 0 for tile in training):
        yield Fault("labels misplaced", "train", f"all {outside} footprints are outside their tiles")


def without_buildings(tiles: Sequence[InspectedTile]) -> Iterator[Fault]:
    """Find out whether no training tile has a footprint."""
    training = [tile for tile in tiles if tile.split == "train"]
    if training and not any(tile.buildings for tile in training):
        yield Fault("no buildings", "train", f"{counted(len(training), 'tile')}, none with a footprint in its labels")


def all_images(tiles: Sequence[InspectedTile]) -> Iterator[Image]:
    """Iterate over all images of all tiles."""
    return (image for tile in tiles for image in tile.images.values())
