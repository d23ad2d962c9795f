"""Select what of an archive samples are made from: product, bands, frame and labels.

In the sensor's frame SAR tiles imaged from the south are rotated by 180°, so that all have the same look direction.
"""

from dataclasses import dataclass

from sn6.datasets.declaration import DataSet, Product, Tile
from sn6.errors import UserError


@dataclass(frozen=True)
class Source:
    """The part of an archive that samples are made from.

    Attributes:
        product: radar or optical
        bands: counted from 1, in the order of the sample's channels
        orient: whether SAR tiles imaged from the south are rotated by 180°
        min_area: m²; smaller footprints are left out of the mask
    """

    product: Product
    bands: tuple[int, ...]
    orient: bool
    min_area: float

    def __post_init__(self) -> None:
        names = self.product.bands
        if not self.bands or not all(1 <= band <= len(names) for band in self.bands):
            raise UserError(
                f"invalid data.bands={list(self.bands)}: {self.product.name} has the bands 1 to {len(names)} "
                f"({', '.join(names)})",
                kind="invalid_value",
                key="data.bands",
                value=list(self.bands),
            )

    @property
    def band_names(self) -> list[str]:
        """Return the names of the bands in their order."""
        return self.product.band_names(self.bands)


def is_rotated(data_set: DataSet, tile: Tile, source: Source) -> bool:
    """Return whether a sample of the tile is rotated by 180° relative to the tile's own frame.

    Raises:
        UserError: the look direction of the tile is not known
    """
    if not source.orient or source.product.optical:
        return False
    if tile.orientation is None:
        raise data_set.missing_orientation(tile)
    return tile.orientation == 1
