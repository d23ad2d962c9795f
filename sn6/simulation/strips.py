"""Plan the passes of the aircraft over the ground, and the tiles that each strip is cut into.

As in the published archive, a strip has one or two rows of adjacent tiles, its own offset and look direction, and its
images show a slightly rotated rectangle that is narrower than its tiles; strips cover the same ground many times. They
are arranged in belts from north to south, those of the training tiles in the north, those of the test tiles south of
them, without overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from math import ceil

import numpy as np
from scipy.special import ndtri
from shapely import Polygon, affinity, box

from sn6.datasets.declaration import Split
from sn6.datasets.spacenet6 import PIXEL
from sn6.errors import UserError
from sn6.simulation.scene import Box

# Upper left corners of tiles, metres. North, south and west are those of the published tiles; the east is slightly
# less, so that folds divide the extent of a simulated archive, not the published one.
WEST, EAST, SOUTH, NORTH = 590112.0, 596245.0, 5745920.0, 5753195.0
MAX_COLUMNS = 10  # tiles in a row of a strip
MIN_TILES_FOR_TWO_ROWS = 36  # of a split
MIN_TILES_FOR_HARD_CASES = 12  # of a split: strips that begin with slivers, and a harbour in the training split
GAIN, BAND_GAIN = 2.7, 1.0  # dB: standard deviation of the calibration between passes, common and of each band
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 fill 0..1 evenly, so that few passes vary as much as many
OFFSET_ERROR = 0.6  # metres: standard deviation of the position
COVERAGE = 0.89  # of the area of a strip's tiles that its images show
# In units of a tile's side:
OFFSET = 0.9  # range of the eastings of the strips of a belt with three passes
SLACK = 0.2  # range of their northings
SLIVER = 0.05  # width that is shown of the first tiles of every third strip
EDGE = 0.02  # width that is not shown of the outer tiles of a strip


@dataclass(frozen=True)
class Strip:
    """One pass.

    Attributes:
        split: "train" or "test_public"
        name: start and end of the pass, UTC
        orientation: look direction: 0 from the north, 1 from the south
        imaged: the ground that its images show, metres
        gain: dB by which its radar images deviate from the calibration: HH, HV, VH, VV
        offset: metres by which its radar images are displaced to the east and to the north
    """

    split: Split
    name: str
    orientation: int
    imaged: Polygon
    gain: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class PlannedTile:
    """One tile to simulate.

    Attributes:
        strip: the pass that shows it
        number: unique over both splits
        x, y: upper left corner, metres
        size: pixels of 0.5 m on each side
    """

    strip: Strip
    number: int
    x: float
    y: float
    size: int

    @property
    def image_id(self) -> str:
        return f"{self.strip.name}_tile_{self.number}"

    @property
    def bounds(self) -> Box:
        """Return west, south, east, north in metres."""
        side = self.size * PIXEL
        return self.x, self.y - side, self.x + side, self.y


@dataclass(frozen=True)
class BeltLayout:
    """The arrangement of a split: strips of `rows` x `columns` tiles, `passes` over each of `belts`.

    The strips of a belt start within `offset` sides of a tile from each other.
    """

    rows: int
    columns: int
    belts: int
    passes: int
    offset: float


def plan_tiles(tiles: int, test_tiles: int, size: int, seed: int, passes: int | None = None) -> list[PlannedTile]:
    """Plan the tiles of an archive strip by strip, those of the test split last.

    Args:
        tiles: of the training split, at least 1
        test_tiles: of the test split
        size: pixels of a tile on each side
        seed: of offsets, rotations and times
        passes: strips over the same ground from each look direction; None for about three of both together

    Raises:
        UserError: the ground has no room for so many tiles with so few passes
    """
    rng = np.random.default_rng((seed, 4))
    side = size * PIXEL
    max_rows = int((NORTH - SOUTH) / side - 2 * SLACK) + 1  # of tiles from north to south
    max_test_rows = min(max(round(max_rows * test_tiles / (tiles + test_tiles)), 2), max_rows - 2)
    names = pass_names(rng)
    train = belt_layout(tiles, side, max_rows - max_test_rows, passes)
    placed = list(place_tiles("train", tiles, train, side, NORTH, names, rng))
    if test_tiles:
        south = NORTH - (train.rows * train.belts + SLACK) * side
        test = belt_layout(test_tiles, side, max_test_rows, passes)
        placed += place_tiles("test_public", test_tiles, test, side, south, names, rng)
    return [PlannedTile(strip, number, x, y, size) for number, (strip, x, y) in enumerate(placed, start=1)]


def belt_layout(tiles: int, side: float, max_rows: int, passes_per_side: int | None = None) -> BeltLayout:
    """Choose the layout of a split: up to three passes over one belt, then longer strips, more belts, more passes.

    Args:
        tiles: of the split, at least 1
        side: of a tile, metres
        max_rows: rows of tiles that fit from north to south
        passes_per_side: fixes the number of passes over a belt

    Raises:
        UserError: so many tiles need more passes
    """
    rows = 1 if tiles < MIN_TILES_FOR_TWO_ROWS else 2
    usual = min(tiles, 2) if tiles < MIN_TILES_FOR_HARD_CASES else 3
    passes = usual if passes_per_side is None else min(2 * passes_per_side, tiles)
    belts = min(max(tiles // (8 * rows * passes), 1), max_rows // rows)
    max_columns = min(MAX_COLUMNS, int((EAST - WEST) / side - OFFSET) + 1)
    if passes_per_side is None:
        columns = min(ceil(tiles / (rows * passes * belts)), max_columns)
        passes = ceil(tiles / (rows * columns * belts))
        offset = OFFSET if passes <= 3 else (EAST - WEST) / side - (columns - 1)
        return BeltLayout(rows, columns, belts, passes, offset)
    belts = min(max(belts, ceil(tiles / (rows * passes * max_columns))), max_rows // rows)
    columns = ceil(tiles / (rows * passes * belts))
    if columns > max_columns:
        raise UserError(
            f"{tiles} tiles do not fit into the simulated area with passes={passes_per_side}; set passes="
            f"{ceil(tiles / (2 * rows * belts * max_columns))} or more, or fewer tiles",
            kind="conflict",
            key="passes",
            value=passes_per_side,
        )
    return BeltLayout(rows, columns, belts, passes, OFFSET)


def place_tiles(
    split: Split,
    tiles: int,
    layout: BeltLayout,
    side: float,
    north: float,
    names: Iterator[str],
    rng: np.random.Generator,
) -> Iterator[tuple[Strip, float, float]]:
    """Yield the strip and the upper left corner of each tile of a split, column by column as the published numbers."""
    strips = min(layout.belts * layout.passes, tiles)
    for index in range(strips):
        tiles_of_strip = tiles * (index + 1) // strips - tiles * index // strips
        repeat, belt = divmod(index, layout.belts)
        x = WEST + side * layout.offset * ((0.38 * repeat + 0.1 * rng.random()) % 1)
        y = north - side * (layout.rows * belt + SLACK * rng.random())
        x, y = round(x, 3), round(y, 3)
        columns = ceil(tiles_of_strip / layout.rows)
        hidden = 1 - SLIVER if tiles >= MIN_TILES_FOR_HARD_CASES and index % 3 == 0 else EDGE
        bounds = (x + hidden * side, y - layout.rows * side, x + (columns - EDGE) * side, y)
        imaged = rotated_rectangle(bounds, COVERAGE * columns * layout.rows * side**2, rng)
        gain = tuple(GAIN * ndtri((0.5 + index * GOLDEN) % 1) + rng.normal(0.0, BAND_GAIN, 4))
        offset = tuple(rng.normal(0.0, OFFSET_ERROR, 2))
        strip = Strip(split, next(names), (repeat + belt) % 2, imaged, gain, offset)
        for column, row in (divmod(i, layout.rows) for i in range(tiles_of_strip)):
            yield strip, round(x + column * side, 3), round(y - row * side, 3)


def rotated_rectangle(bounds: Box, area: float, rng: np.random.Generator) -> Polygon:
    """Draw a rectangle within `bounds`, of their length, rotated by about half a degree.

    Args:
        bounds: metres
        area: square metres; less where the rectangle would not fit
        rng: draws the rotation and the northing
    """
    west, south, east, north = bounds
    angle = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6)
    drift = (east - west) * np.tan(np.radians(abs(angle)))
    height = min(area / (east - west), 0.99 * (north - south - drift))
    lower = south + drift / 2 + rng.random() * (north - south - drift - height)
    return affinity.rotate(box(west, lower, east, lower + height), angle)


def pass_names(rng: np.random.Generator) -> Iterator[str]:
    """Yield start and end of one pass after another, UTC: 24 passes per day, each of about two minutes."""
    for index in count():
        start = datetime(2019, 8, 4, 11, 12, 24) + timedelta(days=index // 24, seconds=index % 24 * 330)
        start += timedelta(seconds=int(rng.integers(0, 60)))
        end = start + timedelta(seconds=int(rng.integers(100, 160)))
        yield f"{start:%Y%m%d%H%M%S}_{end:%Y%m%d%H%M%S}"


def harbour_basins(tiles: list[PlannedTile]) -> tuple[Box, ...]:
    """Return the basin that covers what the first two tiles show (the first is a sliver), so that both have no labels.

    A small training split has none.
    """
    if sum(tile.strip.split == "train" for tile in tiles) < MIN_TILES_FOR_HARD_CASES:
        return ()
    west, south, east, north = tiles[0].bounds
    side, edge = east - west, EDGE * (east - west)
    return ((east - 2 * SLIVER * side, south - edge, east + side + edge, north + edge),)
