"""List the kinds of faults of an archive, and which of them prevent training."""

from typing import NamedTuple

FATAL = {  # training would stop, or learn from wrong data
    "unreadable": "the file is not a GeoTIFF, or is corrupt or truncated",
    "bands": "the number of bands is not that of the product",
    "dtype": "the data type is not that of the product",
    "units": "the values are not in the units that were given",
    "complex": "the values are complex, not decibels",
    "crs": "the CRS is not that of the archive",
    "pixel size": "a pixel is not of the product's size, square and north-up",
    "position": "the products of a tile are at different positions",
    "misnamed": "the file name is not as in the published archive, so the tile is not found",
    "labels": "the labels cannot be read",
    "labels misplaced": "no footprint of the training tiles is on its tile",
    "orientation": "SAR_orientations.txt lacks a strip, or cannot be read (not needed with data.orient=false)",
    "no buildings": "no training tile has a building",
    "folds": "no fold of the data set's own partition has both training and validation tiles",
}
WARNINGS = {  # training leaves these tiles or pixels out, applies what the file declares, or is not affected
    "size": "the image size is not that of most tiles of the product; set data.eval_batch_size=1, the default",
    "labels outside tile": "footprints are entirely outside their tile; the score counts them as missed",
    "missing": "a tile lacks a product that most tiles have",
    "no labels": "a training tile is in neither the CSV nor the GeoJSON labels; training leaves it out",
    "unknown tile": "the labels contain a tile that has no image",
    "labels over edge": "footprints extend over the edge of their tile by more than a pixel",
    "labels on nodata": "all footprints of a tile are on nodata",
    "repaired labels": "labels were changed or left out while their file was read",
    "geojson": "the GeoJSON of a tile cannot be read; the CSV has its labels",
    "nodata": "a tile has no valid pixel",
    "values": "the image contains NaN or infinity; these pixels are nodata",
    "nodata value": "the file declares a nodata value; its pixels are nodata",
    "mask": "the file has a mask or an alpha band; the pixels that it masks are nodata",
    "scale": "the file declares a scale or an offset, which is applied",
    "negative": "the image contains negative values",
    "duplicate tile": "an image id or a tile number occurs twice",
    "identical pixels": "two files contain the same pixels",
}


class Fault(NamedTuple):
    """One fault of an archive.

    Attributes:
        kind: a key of FATAL or WARNINGS
        where: the file, or the tile or strip where there is no file
        message: what is wrong with it
    """

    kind: str
    where: str
    message: str

    @property
    def is_fatal(self) -> bool:
        """Return whether the archive cannot be used for training."""
        return self.kind in FATAL
