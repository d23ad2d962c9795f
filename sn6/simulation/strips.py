"""The passes of the aircraft over the ground, and the tiles that each is cut into.

As in the published archive a strip has one or two rows of tiles that abut, its own offset and orientation, and shows
a slightly turned rectangle that is narrower than its tiles; strips fly over the same ground again and again. They
lie in belts from north to south, the training tiles' in the north, the test tiles' on ground of their own south of
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from math import ceil

import numpy as np
from scipy.special import ndtri
from shapely import Polygon, affinity, box

from sn6.datasets.layout import PIXEL, Split
from sn6.simulation.scene import Box

# Upper left corners of tiles, metres. North, south and west are those of the published tiles; the east ends just
# before, so that folds divide the extent of a simulated archive, not the published one.
WEST, EAST, SOUTH, NORTH = 590112.0, 596245.0, 5745920.0, 5753195.0
LONGEST = 10  # tiles in a row of a strip
TWO_ROWS_FROM = 36  # tiles of a split
HARD_FROM = 12  # tiles of a split: with slivers, and in the training split water
GAIN, BAND_GAIN = 2.5, 0.5  # dB: deviation of the calibration from pass to pass, of all bands and of each
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 fill 0..1 evenly, so that few passes spread as many do
OFFSET_ERROR = 0.6  # metres: deviation of the position
SHOWN = 0.89  # of the ground of its tiles that a strip shows
# In units of a tile's side:
OFFSET = 0.9  # by how much the strips of a belt differ in easting, where three fly over it
SLACK = 0.2  # and in northing
SLIVER = 0.05  # what the first tiles of every third strip show, from west to east
EDGE = 0.02  # what the outer tiles of a strip do not show


@dataclass(frozen=True)
class Strip:
    """One pass.

    Attributes:
        split: "train" or "test_public"
        name: start and end of the pass, UTC
        orientation: 0 imaged from the north, 1 from the south
        seen: the ground that its images show, metres
        gain: dB by which its radar images depart from the calibration: HH, HV, VH, VV
        offset: metres by which they lie too far east and north
    """

    split: Split
    name: str
    orientation: int
    seen: Polygon
    gain: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Tile:
    """One tile to make.

    Attributes:
        strip: that it is cut from
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
        """West, south, east, north in metres."""
        side = self.size * PIXEL
        return self.x, self.y - side, self.x + side, self.y


@dataclass(frozen=True)
class Belts:
    """How the tiles of a split are spread: strips of `rows` x `columns` tiles, `passes` over each of `belts`.

    The strips of a belt start within `offset` tiles' sides of each other, so few of them reach its ends.
    """

    rows: int
    columns: int
    belts: int
    passes: int
    offset: float


def plan(tiles: int, test_tiles: int, size: int, seed: int) -> list[Tile]:
    """The tiles of an archive strip by strip, those of the test split last.

    Args:
        tiles: of the training split, at least 1
        test_tiles: of the test split
        size: pixels of a tile on each side
        seed: of offsets, turns and times
    """
    rng = np.random.default_rng((seed, 4))
    side = size * PIXEL
    room = int((NORTH - SOUTH) / side - 2 * SLACK) + 1  # rows of tiles from north to south
    test_room = min(max(round(room * test_tiles / (tiles + test_tiles)), 2), room - 2)
    names = pass_names(rng)
    train = spread(tiles, side, room - test_room)
    placed = list(places("train", tiles, train, side, NORTH, names, rng))
    if test_tiles:
        south = NORTH - (train.rows * train.belts + SLACK) * side
        placed += places("test_public", test_tiles, spread(test_tiles, side, test_room), side, south, names, rng)
    return [Tile(strip, number, x, y, size) for number, (strip, x, y) in enumerate(placed, start=1)]


def spread(tiles: int, side: float, room: int) -> Belts:
    """Few tiles: up to three passes over one belt. More: longer strips, then more belts, then more passes.

    Args:
        tiles: of the split, at least 1
        side: of a tile, metres
        room: rows of tiles from north to south
    """
    rows = 1 if tiles < TWO_ROWS_FROM else 2
    passes = min(tiles, 2) if tiles < HARD_FROM else 3
    belts = min(max(tiles // (8 * rows * passes), 1), room // rows)
    columns = min(ceil(tiles / (rows * passes * belts)), LONGEST, int((EAST - WEST) / side - OFFSET) + 1)
    passes = ceil(tiles / (rows * columns * belts))
    offset = OFFSET if passes <= 3 else (EAST - WEST) / side - (columns - 1)
    return Belts(rows, columns, belts, passes, offset)


def places(
    split: Split, tiles: int, belts: Belts, side: float, north: float, names: Iterator[str], rng: np.random.Generator
) -> Iterator[tuple[Strip, float, float]]:
    """The strip and the upper left corner of each tile of a split, column by column as the published numbers go."""
    strips = min(belts.belts * belts.passes, tiles)
    for index in range(strips):
        share = tiles * (index + 1) // strips - tiles * index // strips
        repeat, belt = divmod(index, belts.belts)
        x = WEST + side * belts.offset * ((0.38 * repeat + 0.1 * rng.random()) % 1)
        y = north - side * (belts.rows * belt + SLACK * rng.random())
        x, y = round(x, 3), round(y, 3)
        columns, hidden = ceil(share / belts.rows), EDGE
        if tiles >= HARD_FROM and index % 3 == 0:
            hidden = 1 - SLIVER
        bounds = (x + hidden * side, y - belts.rows * side, x + (columns - EDGE) * side, y)
        seen = turned_rectangle(bounds, SHOWN * columns * belts.rows * side**2, rng)
        gain = tuple(GAIN * ndtri((0.5 + index * GOLDEN) % 1) + rng.normal(0.0, BAND_GAIN, 4))
        offset = tuple(rng.normal(0.0, OFFSET_ERROR, 2))
        strip = Strip(split, next(names), (repeat + belt) % 2, seen, gain, offset)
        for column, row in (divmod(i, belts.rows) for i in range(share)):
            yield strip, round(x + column * side, 3), round(y - row * side, 3)


def turned_rectangle(bounds: Box, area: float, rng: np.random.Generator) -> Polygon:
    """A rectangle of `area` square metres, or as much as fits, as long as `bounds` and turned by half a degree."""
    west, south, east, north = bounds
    angle = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6)
    drift = (east - west) * np.tan(np.radians(abs(angle)))
    height = min(area / (east - west), 0.99 * (north - south - drift))
    lower = south + drift / 2 + rng.random() * (north - south - drift - height)
    return affinity.rotate(box(west, lower, east, lower + height), angle)


def pass_names(rng: np.random.Generator) -> Iterator[str]:
    """Start and end of one pass after another, UTC: 24 passes a day, each of about two minutes."""
    for index in count():
        start = datetime(2019, 8, 4, 11, 12, 24) + timedelta(days=index // 24, seconds=index % 24 * 330)
        start += timedelta(seconds=int(rng.integers(0, 60)))
        end = start + timedelta(seconds=int(rng.integers(100, 160)))
        yield f"{start:%Y%m%d%H%M%S}_{end:%Y%m%d%H%M%S}"


def basins_of(tiles: list[Tile]) -> tuple[Box, ...]:
    """Where the scene has a harbour: all that the first two tiles of the first row show, the first being a sliver."""
    if sum(tile.strip.split == "train" for tile in tiles) < HARD_FROM:
        return ()
    west, south, east, north = tiles[0].bounds
    side, edge = east - west, EDGE * (east - west)
    return ((east - 2 * SLIVER * side, south - edge, east + side + edge, north + edge),)
