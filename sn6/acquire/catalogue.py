"""List what is published of SpaceNet 6, at which address, and how large it is.

Sources: the bucket's own listing and torchgeo's checksums of the two tarballs (CC BY-SA 4.0).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sn6.datasets.layout import PRODUCTS, Split

BUCKET = "https://spacenet-dataset.s3.amazonaws.com"  # public: no signature, no account
BASELINE_PREFIX = "spacenet-model-weights/spacenet-6/baseline/"
TILE_SIDE = 450.0  # metres


@dataclass(frozen=True)
class Tarball:
    """One published tarball.

    Attributes:
        name: file name in the bucket
        md5: checksum of the file
        size: approximate size in bytes
        tiles: number of images of each product
        products: names of its products
    """

    name: str
    md5: str
    size: int
    tiles: int
    products: tuple[str, ...]

    @property
    def url(self) -> str:
        """Return its address in the bucket."""
        return f"{BUCKET}/spacenet/SN6_buildings/tarballs/{self.name}"

    def expansion(self, products: Iterable[str]) -> float:
        """Return the bytes of the unpacked images of `products` per byte of the tarball, estimated.

        The GeoTIFFs are not compressed, so their size is that of their pixels: 85 GB for all training tiles, 44 GB
        for their SAR images.
        """
        return self.tiles * sum(image_size(product) for product in products) / self.size


TARBALLS: dict[Split, Tarball] = {
    "train": Tarball(
        name="SN6_buildings_AOI_11_Rotterdam_train.tar.gz",
        md5="10ca26d2287716e3b6ef0cf0ad9f946e",
        size=39_000_000_000,
        tiles=3401,
        products=tuple(PRODUCTS),
    ),
    "test_public": Tarball(
        name="SN6_buildings_AOI_11_Rotterdam_test_public.tar.gz",
        md5="a07823a5e536feeb8bb6b6f0cb43cf05",
        size=17_000_000_000,
        tiles=2061,
        products=("SAR-Intensity",),
    ),
}


def image_size(product: str) -> int:
    """Return the bytes of the pixels of one tile of a product."""
    image = PRODUCTS[product]
    return round(TILE_SIDE / image.pixel) ** 2 * len(image.bands) * np.dtype(image.dtype).itemsize
