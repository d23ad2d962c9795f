"""Select what of an archive samples are made from: product, bands, frame and labels.

In the sensor's frame SAR tiles imaged from the south are rotated by 180°, so that all have the same look direction.
"""

from dataclasses import dataclass
from pathlib import Path

from sn6.datasets.archive import Tile
from sn6.datasets.layout import PRODUCTS, orientations_path
from sn6.errors import UserError

ORIENTATIONS = orientations_path(Path()).name


@dataclass(frozen=True)
class Source:
    """The part of an archive that samples are made from.

    Attributes:
        product: "SAR-Intensity" or an optical one
        bands: counted from 1, in the order of the sample's channels
        orient: whether SAR tiles imaged from the south are rotated by 180°
        min_area: m²; smaller footprints are left out of the mask
    """

    product: str
    bands: tuple[int, ...]
    orient: bool
    min_area: float

    def __post_init__(self) -> None:
        names = PRODUCTS[self.product].bands
        if not self.bands or not all(1 <= band <= len(names) for band in self.bands):
            raise UserError(
                f"invalid data.bands={list(self.bands)}: {self.product} has the bands 1 to {len(names)} "
                f"({', '.join(names)})",
                kind="invalid_value",
                key="data.bands",
                value=list(self.bands),
            )


def default_bands(product: str) -> list[int]:
    """Return all bands of a product in their order; of PS-RGB four, as the baseline reads them for SAR networks.

    Raises:
        UserError: an unknown product
    """
    if product not in PRODUCTS:
        raise UserError(
            f"unknown data.product={product}; choose from {', '.join(PRODUCTS)}",
            kind="unknown_value",
            key="data.product",
            value=product,
        )
    return [3, 1, 1, 2] if product == "PS-RGB" else list(range(1, len(PRODUCTS[product].bands) + 1))


def is_rotated(tile: Tile, source: Source) -> bool:
    """Return whether a sample of the tile is rotated by 180° relative to the tile's own frame.

    Raises:
        UserError: the orientation table lacks the strip
    """
    if not source.orient or PRODUCTS[source.product].optical:
        return False
    if tile.orientation is None:
        raise UserError(
            f"{ORIENTATIONS} has no look direction for the strip {tile.strip} of tile {tile.image_id}; add the line "
            f"'{tile.strip} 0' (imaged from the north) or '{tile.strip} 1' (from the south), or set data.orient=false",
            kind="missing_value",
            key=ORIENTATIONS,
            value=tile.strip,
        )
    return tile.orientation == 1
