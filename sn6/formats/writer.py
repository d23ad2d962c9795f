"""What the writers of footprints share: tiles come in one after another, and the file is whole or not there."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sn6.datasets.layout import CRS, PIXEL
from sn6.files import atomic_write
from sn6.footprints import Footprints
from sn6.footprints.ground import Corner

Writer = TypeVar("Writer", bound="FootprintWriter")


class FootprintWriter(ABC):
    """A context manager that takes the footprints tile by tile; the file is there once all went well.

    Args:
        path: the file; its folder is made
        crs: of the tiles, as "EPSG:<code>"; None where they have none, so that the file does not claim one
        pixel: size of a pixel in the units of the CRS
    """

    def __init__(self, path: Path, crs: str | None = CRS, pixel: float = PIXEL) -> None:
        self.path = path
        self.crs = crs
        self.pixel = pixel

    def __enter__(self: Writer) -> Writer:
        self._tiles: dict[str, Corner] = {}
        with ExitStack() as stack:
            self._file = stack.enter_context(stack.enter_context(atomic_write(self.path)).open("wb"))
            self._begin(stack)
            stack.push(self._end_unless_stopped)
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def _end_unless_stopped(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self._end()

    def write(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        """Adds a tile that was looked at, with footprints or without.

        Args:
            image_id: of the tile
            corner: its west and north edge in metres
            footprints: in pixels of the tile
        """
        self._tiles[image_id] = corner
        self._add(image_id, corner, footprints)

    def looked_at(self) -> dict[str, Any]:
        """What a file says of its tiles, so that it can be scored: the size of a pixel, and each tile's corner."""
        return {"pixel": self.pixel, "tiles": self._tiles}

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Writes what stands before the first tile; what is to be closed goes onto the stack."""

    @abstractmethod
    def _add(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        """Writes a tile."""

    @abstractmethod
    def _end(self) -> None:
        """Writes what stands after the last tile."""
