"""What is published of SpaceNet 6, where it lies, and how much room it takes.

Sources: the bucket's own listing and the checksums that torchgeo keeps of the two tarballs (CC BY-SA 4.0).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sn6.datasets.layout import PRODUCTS, Split
from sn6.errors import UserError

BUCKET = "https://spacenet-dataset.s3.amazonaws.com"  # public: no signature, no account
BASELINE_PREFIX = "spacenet-model-weights/spacenet-6/baseline/"
LABELS = ("geojson_buildings", "SummaryData")  # folders of the training set that are no product
TILE_SIDE = 450.0  # metres


@dataclass(frozen=True)
class Tarball:
    """One published tarball.

    Attributes:
        name: of the file in the bucket
        md5: of its bytes
        size: in bytes, as announced: about
        tiles: images of each product
        folders: that it holds
    """

    name: str
    md5: str
    size: int
    tiles: int
    folders: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where it lies."""
        return f"{BUCKET}/spacenet/SN6_buildings/tarballs/{self.name}"


TARBALLS: dict[Split, Tarball] = {
    "train": Tarball(
        name="SN6_buildings_AOI_11_Rotterdam_train.tar.gz",
        md5="10ca26d2287716e3b6ef0cf0ad9f946e",
        size=39_000_000_000,
        tiles=3401,
        folders=(*PRODUCTS, *LABELS),
    ),
    "test_public": Tarball(
        name="SN6_buildings_AOI_11_Rotterdam_test_public.tar.gz",
        md5="a07823a5e536feeb8bb6b6f0cb43cf05",
        size=17_000_000_000,
        tiles=2061,
        folders=("SAR-Intensity",),
    ),
}


def chosen_products(split: Split, products: Iterable[str]) -> tuple[str, ...]:
    """Those of `products` that the split has.

    Raises:
        UserError: it has none of them
    """
    chosen = tuple(product for product in products if product in TARBALLS[split].folders)
    if not chosen:
        has = ", ".join(folder for folder in TARBALLS[split].folders if folder in PRODUCTS)
        raise UserError(f"products=[{','.join(products)}] does not do: {split} has {has} alone")
    return chosen


def unpacked_size(tarball: Tarball, length: int | None, folders: Iterable[str]) -> int:
    """Bytes that the images of `folders` take on disk, estimated.

    The GeoTIFFs are not compressed, so their size is that of their pixels: 85 GB of all training tiles, 44 GB of
    their radar images alone. A tarball of another length than the published one is taken to unpack in proportion.
    """
    pixels = sum(image_size(folder) for folder in folders if folder in PRODUCTS) * tarball.tiles
    return round(pixels * (1.0 if length is None else length / tarball.size))


def image_size(product: str) -> int:
    """Bytes of the pixels of one whole tile."""
    kind = PRODUCTS[product]
    return round(TILE_SIDE / kind.pixel) ** 2 * len(kind.bands) * np.dtype(kind.dtype).itemsize
