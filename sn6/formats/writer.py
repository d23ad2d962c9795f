"""Write footprints tile by tile into a file that appears only when it is complete."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import shapely
from jaxtyping import Float64, Shaped

from sn6.files import atomic_write
from sn6.footprints import Footprints
from sn6.footprints.ground import Corner, to_ground

WGS84 = "EPSG:4326"
DEGREE_DIGITS = 9
Writer = TypeVar("Writer", bound="FootprintWriter")  # beartype checks methods one by one, which excludes Self


class FootprintWriter(ABC):
    """Write footprints tile by tile, as a context manager; the file is moved into place when the block succeeds.

    Args:
        path: file to write; its folder is created
        classes: names of the classes of the footprints, in the order of their numbers; none for one class
    """

    def __init__(self, path: Path, classes: Sequence[str] = ()) -> None:
        self.path = path
        self.classes = tuple(classes)

    def __enter__(self: Writer) -> Writer:
        with ExitStack() as stack:
            self._file = stack.enter_context(stack.enter_context(atomic_write(self.path)).open("wb"))
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
    def write(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        """Add an evaluated tile, with footprints or without.

        Args:
            image_id: of the tile
            corner: of the tile
            footprints: in pixels of the tile
        """

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Write what precedes the first tile; push what must be closed onto the stack."""

    @abstractmethod
    def _end(self) -> None:
        """Write what follows the last tile."""


class GroundWriter(FootprintWriter):
    """Write footprints on the ground, with the list of all evaluated tiles, so that the file can be scored.

    A file of tiles that differ in their CRS or pixel size has no such list.

    Args:
        path: file to write; its folder is created
        crs: of the file, as "EPSG:<code>", see `common_crs`; None for images without a CRS
        pixel_size: of the tiles, in the units of the CRS
        classes: names of the classes of the footprints, in the order of their numbers; none for one class
        has_looks: whether footprints have a number of looks
    """

    def __init__(
        self, path: Path, crs: str | None, pixel_size: float, classes: Sequence[str] = (), has_looks: bool = False
    ) -> None:
        super().__init__(path, classes)
        self.crs = crs
        self.pixel_size = pixel_size
        self.has_looks = has_looks
        self._tiles: dict[str, Corner] | None = {}

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
        crs, pixel_size = crs or self.crs, pixel_size or self.pixel_size
        if (crs, pixel_size) != (self.crs, self.pixel_size):
            self._tiles = None
        elif self._tiles is not None:
            self._tiles[image_id] = corner
        polygons = to_crs(to_ground(footprints.polygons, corner, pixel_size), crs, self.crs)
        areas = shapely.area(footprints.polygons) * pixel_size**2
        self._add(image_id, replace(footprints, polygons=polygons), areas)

    def evaluated_tiles(self) -> dict[str, Any]:
        """Return the members `pixel_size` and `tiles` of the file: `tiles` maps image ids to corners."""
        return {} if self._tiles is None else {"pixel_size": self.pixel_size, "tiles": self._tiles}

    def numbers_of_looks(self, footprints: Footprints) -> list[int]:
        """Return the number of looks of each footprint."""
        assert footprints.looks is not None, "footprints of several images have a number of looks"
        return footprints.looks.tolist()

    @abstractmethod
    def _add(self, image_id: str, footprints: Footprints, areas: Float64[np.ndarray, "n"]) -> None:
        """Write the footprints of a tile.

        Args:
            image_id: of the tile
            footprints: in the CRS of the file
            areas: m²
        """


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
