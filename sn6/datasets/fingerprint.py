"""Fingerprint what a run reads from a data set, so that a copy at another path is recognised and other data are not."""

from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path

from sn6.datasets.declaration import DataSet, Split


def data_fingerprint(data_set: DataSet, product: str | None) -> dict[str, str]:
    """Return a digest of each part of a data set that a run on `product` (None for the first) depends on, by the part's
    name.

    Parts are the index of each product and split (name, size of the file in bytes and bounds of each tile), the labels
    and the look directions. The times of the files, which a copy changes, do not count, and no pixels are read: in
    files of the same size they may differ.

    Raises:
        UserError: the data set has no tile of the product, or a tile cannot be opened
    """
    own, main = data_set.product(product, "data.product").name, data_set.main_product()
    products: list[tuple[Split, str]] = [("train", name) for name in dict.fromkeys([main or own, own])]
    if data_set.has_test_labels and (test := data_set.main_product("test_public")):
        products.append(("test_public", test))
    parts = {f"{name} of {split}": index_digest(data_set, split, name) for split, name in products}
    return parts | {name: files_digest(paths) for name, paths in data_set.input_files(products[0][1]).items()}


def index_digest(data_set: DataSet, split: Split, product: str) -> str:
    """Return the number of tiles with a digest of the names, sizes and bounds of their files."""
    tiles = data_set.tiles(split, product)
    digest = sha256()
    for tile in tiles:
        path = data_set.image_path(tile, product)
        size = path.stat().st_size if path.exists() else "?"  # of an address
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
