"""List what is published of SpaceNet 6, at which address, and how large it is.

Sources: the bucket's own listing and torchgeo's checksums of the two tarballs (CC BY-SA 4.0).
"""

from typing import NamedTuple

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import AOI

BUCKET = "https://spacenet-dataset.s3.amazonaws.com"  # public: no signature, no account
BASELINE_PREFIX = "spacenet-model-weights/spacenet-6/baseline/"


class Tarball(NamedTuple):
    """One published tarball."""

    name: str  # in the bucket
    md5: str
    size: int  # bytes, approximate
    unpacked: int  # bytes of its images, approximate; the GeoTIFFs are not compressed
    tiles: int  # images of each product

    @property
    def url(self) -> str:
        """Return its address in the bucket."""
        return f"{BUCKET}/spacenet/SN6_buildings/tarballs/{self.name}"


TARBALLS: dict[Split, Tarball] = {
    "train": Tarball(
        name=f"SN6_buildings_{AOI}_train.tar.gz",
        md5="10ca26d2287716e3b6ef0cf0ad9f946e",
        size=39_000_000_000,
        unpacked=85_400_000_000,
        tiles=3401,
    ),
    "test_public": Tarball(
        name=f"SN6_buildings_{AOI}_test_public.tar.gz",
        md5="a07823a5e536feeb8bb6b6f0cb43cf05",
        size=17_000_000_000,
        unpacked=26_700_000_000,
        tiles=2061,
    ),
}
