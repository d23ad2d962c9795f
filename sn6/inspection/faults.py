"""What can be wrong with an archive, and whether it can be trained on all the same."""

from typing import NamedTuple

FATAL = {  # a training would stop at these, or learn what is wrong
    "unreadable": "a file is no GeoTIFF, or broken or cut short",
    "bands": "another number of bands than the product's",
    "dtype": "another type of pixels than the product's",
    "crs": "another CRS than the archive's",
    "size": "another size than most tiles of the product",
    "place": "the products of a tile lie at different places",
    "values": "NaN or infinity",
    "misnamed": "a tile's file has not the name of the published archive, so it is not found",
    "labels": "labels that cannot be read",
    "labels off tile": "footprints that lie wholly outside their tile",
    "orientation": "a radar strip that the table of orientations lacks (data.orient=false does without)",
    "folds": "no fold of data.split=columns has tiles to train and to validate with",
}
WARNINGS = {  # a training leaves these out, or they do no harm
    "missing": "a tile lacks a product that most tiles have",
    "no labels": "a training tile that neither form of the labels knows: it is left out",
    "unknown tile": "labels of a tile that is not there",
    "labels over edge": "footprints that reach more than a pixel over the edge of their tile",
    "labels on nodata": "a tile of which all footprints lie on nodata",
    "geojson": "a GeoJSON that cannot be read, of a tile whose labels the CSV has",
    "nodata": "a tile without a valid pixel",
    "negative": "negative decibels",
    "duplicate tile": "an image id or a tile's number twice",
    "identical pixels": "the same pixels under two names",
}


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: a key of FATAL or WARNINGS
        where: the file, or the tile or strip where it has none
        what: in words
    """

    kind: str
    where: str
    what: str

    @property
    def is_fatal(self) -> bool:
        return self.kind in FATAL
