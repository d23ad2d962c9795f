"""List the files of an archive, from their names only."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import IMAGE_ID, PRODUCTS, SPLIT_NAMES, split_folder, tile_path
from sn6.inspection.faults import Fault


@dataclass(frozen=True)
class Index:
    """The files of an archive.

    Attributes:
        files: split and image id → product → path, in the order of the splits and ids
        faults: faults of the names
    """

    files: dict[tuple[Split, str], dict[str, Path]]
    faults: list[Fault]


def list_files(root: Path) -> Index:
    """List the files of all products of an archive."""
    files: defaultdict[tuple[Split, str], dict[str, Path]] = defaultdict(dict)
    others = []
    for split in SPLIT_NAMES:
        for product in PRODUCTS:
            for path in sorted((split_folder(root, split) / product).glob("*.tif")):
                if match := IMAGE_ID.search(path.name):
                    image_id = f"{match[1]}_{match[2]}"
                    if path == tile_path(root, split, product, image_id):
                        files[split, image_id][product] = path
                    else:
                        others.append((path, tile_path(root, split, product, image_id)))
    ordered = dict(sorted(files.items(), key=lambda item: (list(SPLIT_NAMES).index(item[0][0]), item[0][1])))
    return Index(ordered, [*misnamed(others), *repeated(ordered), *missing(ordered)])


def misnamed(others: list[tuple[Path, Path]]) -> Iterator[Fault]:
    """Find files whose name is not that of their tile.

    Args:
        others: path of each such file, and the path that its tile should have
    """
    for path, expected in others:
        if expected.exists():
            yield Fault("duplicate tile", str(path), f"the tile has the file {expected.name} as well; remove one")
        else:
            yield Fault("misnamed", str(path), f"rename it to {expected.name}")


def repeated(files: dict[tuple[Split, str], dict[str, Path]]) -> Iterator[Fault]:
    """Find tile numbers that occur twice; they are unique over both splits."""
    first: dict[str, Path] = {}
    for (_, image_id), images in files.items():
        path = next(iter(images.values()))
        other = first.setdefault(image_id.rpartition("_")[2], path)
        if other is not path:
            yield Fault("duplicate tile", str(path), f"{other} has the same tile number; remove one")


def missing(files: dict[tuple[Split, str], dict[str, Path]]) -> Iterator[Fault]:
    """Find tiles that lack a product that more than half of the tiles of their split have."""
    tiles = Counter(split for split, _ in files)
    images_of = Counter((split, product) for (split, _), images in files.items() for product in images)
    for (split, image_id), images in files.items():
        for product in PRODUCTS:
            if product not in images and 2 * images_of[split, product] > tiles[split]:
                yield Fault("missing", image_id, f"no {product}; download the archive again")
