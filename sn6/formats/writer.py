"""Write footprints tile by tile into a file that appears only when it is complete."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sn6.files import atomic_write
from sn6.footprints import Footprints
from sn6.footprints.ground import Corner

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
    """Write footprints in metres, with the list of all evaluated tiles, so that the file can be scored.

    Args:
        path: file to write; its folder is created
        crs: of the tiles, as "EPSG:<code>"; None for images without a CRS, whose file gets none either
        pixel_size: in the units of the CRS
        classes: names of the classes of the footprints, in the order of their numbers; none for one class
    """

    def __init__(self, path: Path, crs: str | None, pixel_size: float, classes: Sequence[str] = ()) -> None:
        super().__init__(path, classes)
        self.crs = crs
        self.pixel_size = pixel_size
        self._tiles: dict[str, Corner] = {}

    def write(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        self._tiles[image_id] = corner
        self._add(image_id, corner, footprints)

    def evaluated_tiles(self) -> dict[str, Any]:
        """Return the members `pixel_size` and `tiles` of the file: `tiles` maps image ids to corners."""
        return {"pixel_size": self.pixel_size, "tiles": self._tiles}

    @abstractmethod
    def _add(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        """Write the footprints of a tile."""
