"""Fingerprint what a run reads from an archive, so that a copy at another path is recognised and other data are not."""

from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path

from sn6.datasets.archive import Archive
from sn6.datasets.layout import Split, labels_path, orientations_path, test_truth_path, tile_path

RADAR = "SAR-Intensity"  # whose tiles are divided into folds for every product


def archive_fingerprint(archive: Archive, product: str) -> dict[str, str]:
    """Return a digest of each part of an archive that a run on `product` depends on, by the part's name.

    Parts are the index of each product and split (name, size of the file in bytes and bounds of each tile), the labels
    and the look directions. The times of the files, which a copy changes, do not count, and no pixels are read: in
    files of the same size they may differ.

    Raises:
        UserError: the archive has no tile of the product, or a tile cannot be opened
    """
    has_radar = archive.has_product("train", RADAR)
    products: list[tuple[Split, str]] = [("train", name) for name in dict.fromkeys([RADAR] * has_radar + [product])]
    truth = test_truth_path(archive.root)
    if truth.exists() and archive.has_product("test_public", RADAR):
        products.append(("test_public", RADAR))
    parts = {f"{name} of {split}": index_digest(archive, split, name) for split, name in products}
    labels = [labels_path(archive.root), *archive.geojson_files(products[0][1])]
    files = {"labels of train": labels, "labels of test_public": [truth]}
    files["look directions"] = [orientations_path(archive.root)]
    return parts | {name: files_digest(paths) for name, paths in files.items()}


def index_digest(archive: Archive, split: Split, product: str) -> str:
    """Return the number of tiles with a digest of the names, sizes and bounds of their files."""
    tiles = archive.tiles(split, product)
    digest = sha256()
    for tile in tiles:
        size = tile_path(archive.root, split, product, tile.image_id).stat().st_size
        digest.update(f"{tile.image_id} {size} {tile.bounds}\n".encode())
    return f"{len(tiles)} tiles, {digest.hexdigest()}"


def files_digest(paths: Iterable[Path]) -> str:
    """Return a digest of the names and contents of those of the files that exist."""
    digest = sha256()
    for path in paths:
        if path.exists():
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's contents."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
