"""Write footprints tile by tile into a file that appears only when it is complete."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import numpy as np
import shapely
from jaxtyping import Float64, Shaped

from sn6.files import atomic_write
from sn6.footprints import Footprints
from sn6.footprints.ground import Corner, to_ground

WGS84 = "EPSG:4326"
DEGREE_DIGITS = 9
# Every attribute that a file on the ground can have, in the order of its columns; `str` of `time` is ISO 8601.
COLUMN_TYPES = {
    "id": str,
    "image_id": str,
    "confidence": float,
    "area_m2": float,
    "category": str,
    "height_m": float,
    "looks": int,
    "time": str,
    "model": str,
}
Writer = TypeVar("Writer", bound="FootprintWriter")  # beartype checks methods one by one, which excludes Self


class FootprintWriter(ABC):
    """Write footprints tile by tile, as a context manager; the file is moved into place when the block succeeds.

    Args:
        path: file to write; its folder is created
        classes: names of the classes of the footprints, in the order of their numbers; none for one class

    Attributes:
        stem: name of its file in a prediction; None for that of all files on the ground
    """

    stem: ClassVar[str | None] = None

    def __init__(self, path: Path, classes: Sequence[str] = ()) -> None:
        self.path = path
        self.classes = tuple(classes)

    def __enter__(self: Writer) -> Writer:
        with ExitStack() as stack:
            self._part = stack.enter_context(atomic_write(self.path))
            self._begin(stack)
            stack.push(self._end_if_complete)
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def _end_if_complete(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self._end()

    def categories(self, footprints: Footprints) -> list[str]:
        """Return the name of the class of each footprint; none for one class."""
        if not self.classes:
            return []
        assert footprints.classes is not None, "footprints of several classes have classes"
        return [self.classes[number - 1] for number in footprints.classes.tolist()]

    @abstractmethod
    def write(
        self,
        image_id: str,
        corner: Corner,
        footprints: Footprints,
        crs: str | None = None,
        pixel_size: float | None = None,
    ) -> None:
        """Add an evaluated tile, with footprints or without.

        Args:
            image_id: of the tile
            corner: of the tile, in its CRS
            footprints: in pixels of the tile
            crs: of the tile; None for that of the file
            pixel_size: of the tile; None for that of the file
        """

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Open `self._part` and write what precedes the first tile; push what must be closed onto the stack."""

    @abstractmethod
    def _end(self) -> None:
        """Write what follows the last tile."""


@dataclass(frozen=True)
class Attributes:
    """What a file on the ground says of its footprints, besides their id, image, confidence, area and class.

    Attributes:
        heights: whether they have heights
        looks: whether they have a number of looks
        times: image id → time at which it was sensed, in ISO 8601; images without one are missing
        model: id of the networks that made them; None for none
    """

    heights: bool = False
    looks: bool = False
    times: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None


class GroundWriter(FootprintWriter):
    """Write footprints on the ground, with the list of all evaluated tiles, so that the file can be scored.

    A file of tiles that differ in their CRS or pixel size has no such list.

    Args:
        path: file to write; its folder is created
        crs: of the file, as "EPSG:<code>", see `common_crs`; None for images without a CRS
        pixel_size: of the tiles, in the units of the CRS
        classes: names of the classes of the footprints, in the order of their numbers; none for one class
        attributes: further ones
    """

    def __init__(
        self,
        path: Path,
        crs: str | None,
        pixel_size: float,
        classes: Sequence[str] = (),
        attributes: Attributes = Attributes(),
    ) -> None:
        super().__init__(path, classes)
        self.crs = crs
        self.pixel_size = pixel_size
        self.attributes = attributes
        self._tiles: dict[str, Corner] | None = {}
        self._numbers: dict[str, int] = {}  # of the next footprint of each tile that has some

    def write(
        self,
        image_id: str,
        corner: Corner,
        footprints: Footprints,
        crs: str | None = None,
        pixel_size: float | None = None,
    ) -> None:
        """Add an evaluated tile, with footprints or without; it may be written in several pieces.

        Args:
            image_id: of the tile
            corner: of the tile, in its CRS
            footprints: in pixels of the tile
            crs: of the tile; None for that of the file
            pixel_size: of the tile; None for that of the file
        """
        crs, pixel_size = crs or self.crs, pixel_size or self.pixel_size
        if (crs, pixel_size) != (self.crs, self.pixel_size):
            self._tiles = None
        elif self._tiles is not None:
            self._tiles[image_id] = corner
        polygons = to_crs(to_ground(footprints.polygons, corner, pixel_size), crs, self.crs)
        areas = shapely.area(footprints.polygons) * pixel_size**2
        if len(footprints):
            self._add(polygons, self._columns(image_id, footprints, areas))

    def evaluated_tiles(self) -> dict[str, Any]:
        """Return the members `pixel_size` and `tiles` of the file: `tiles` maps image ids to corners."""
        return {} if self._tiles is None else {"pixel_size": self.pixel_size, "tiles": self._tiles}

    @property
    def column_names(self) -> list[str]:
        """Return the names of the attributes in the file, among those of COLUMN_TYPES."""
        given = {
            "category": bool(self.classes),
            "height_m": self.attributes.heights,
            "looks": self.attributes.looks,
            "time": bool(self.attributes.times),
            "model": self.attributes.model is not None,
        }
        return [name for name in COLUMN_TYPES if given.get(name, True)]

    def _columns(self, image_id: str, footprints: Footprints, areas: Float64[np.ndarray, "n"]) -> dict[str, list[Any]]:
        """Return the attributes of footprints of one tile, None where one has no value."""
        count, first = len(footprints), self._numbers.get(image_id, 0)
        self._numbers[image_id] = first + count
        values = {
            "id": [f"{image_id}_{number}" for number in range(first, first + count)],
            "image_id": [image_id] * count,
            "confidence": footprints.confidences.tolist(),
            "area_m2": areas.tolist(),
            "category": self.categories(footprints),
            "height_m": without_nan(footprints.heights),
            "looks": [] if footprints.looks is None else footprints.looks.tolist(),
            "time": [self.attributes.times.get(image_id)] * count,
            "model": [self.attributes.model] * count,
        }
        return {name: values[name] for name in self.column_names}

    @abstractmethod
    def _add(self, polygons: Shaped[np.ndarray, "n"], columns: dict[str, list[Any]]) -> None:
        """Write footprints of a tile, at least one.

        Args:
            polygons: in the CRS of the file
            columns: name of the attribute → value of each
        """


def without_nan(values: Float64[np.ndarray, "n"] | None) -> list[float | None]:
    """Return numbers as a list, None where they are NaN; an empty one for None."""
    return [] if values is None else [None if math.isnan(value) else value for value in values.tolist()]


def common_crs(of_tiles: Iterable[str | None]) -> str | None:
    """Return the CRS of a file of footprints: that of all tiles, or longitude and latitude where they have several."""
    different = set(of_tiles)
    return different.pop() if len(different) == 1 else WGS84


def to_crs(polygons: Shaped[np.ndarray, "n"], source: str | None, target: str | None) -> Shaped[np.ndarray, "n"]:
    """Convert polygons from one CRS to another; degrees are rounded to 1e-9, which is 0.1 mm."""
    if source == target or not len(polygons):
        return polygons
    import geopandas  # which a file in one CRS does not need

    moved = geopandas.GeoSeries(polygons, crs=source).to_crs(target).to_numpy()
    return shapely.transform(moved, lambda xy: np.round(xy, DEGREE_DIGITS)) if target == WGS84 else np.asarray(moved)
