"""See an image as a part of its map: the mean of all looks at its own valid pixels.

A registered image is seen on the ground where its georeference places it, and its own valid pixels where its shift
places them: its footprints are on the map's ground, as labels are, and not on its own displaced buildings. The map, the
mean of all looks, is the best estimate of the true ground.
"""

from dataclasses import replace

import numpy as np
import shapely
from jaxtyping import Float32

from sn6.footprints import Footprints
from sn6.heads import Heads
from sn6.prediction.fused_map import FusedMaps, outputs_on_map
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Rectangle
from sn6.prediction.plan import Plan


class FusedView:
    """Read the fused outputs of an image, with its nodata, in the frame of its map.

    Args:
        plan: with fusion
        number: of an image on a map
        heads: of the outputs
    """

    def __init__(self, plan: Plan, number: int, heads: Heads) -> None:
        place = plan.layout.place(number)
        assert place is not None
        self.plan, self.number, self.heads, self.place = plan, number, heads, place
        self.rows, self.columns = plan.layout.rectangle(number)
        grid = plan.layout.maps[place.map]
        west, north = grid.corner
        self.image = replace(
            plan.images[number],
            height=self.rows.stop - self.rows.start,
            width=self.columns.stop - self.columns.start,
            corner=(west + self.columns.start * grid.pixel, north - self.rows.start * grid.pixel),
            rotated=False,
        )

    def read(self, rows: slice, columns: slice) -> Float32[np.ndarray, "k h w"]:
        """Read a rectangle of the view: the mean outputs of all looks, NaN where the image itself has no data."""
        top, left = self.rows.start, self.columns.start
        on_map = slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)
        return self.at_own_pixels(self.plan.fused.read(self.place.map, *on_map, self.heads.channels), on_map)

    def at_own_pixels(
        self, outputs: Float32[np.ndarray, "k h w"], rectangle: Rectangle
    ) -> Float32[np.ndarray, "k h w"]:
        """Return the outputs at a rectangle of the map, NaN where the image itself has no data."""
        image, place = self.plan.images[self.number], self.plan.registered.place(self.number)
        assert place is not None
        own = outputs_on_map(image, place, self.plan.mosaic(self.number), self.heads, rectangle)
        return np.where(np.isnan(own[0]), np.float32(np.nan), outputs)

    def to_image(self, footprints: Footprints) -> Footprints:
        """Return footprints in pixels of the image, with their number of looks."""
        start = np.array([self.columns.start, self.rows.start])
        return self.moved(with_looks(footprints, self.plan.fused, self.place.map, start))

    def moved(self, footprints: Footprints) -> Footprints:
        """Return footprints in pixels of the image."""
        shift = np.array([self.columns.start - self.place.column, self.rows.start - self.place.row])
        if not shift.any():
            return footprints
        return replace(footprints, polygons=shapely.transform(footprints.polygons, lambda xy: xy + shift))


def image_of_map(plan: Plan, number: int) -> Image:
    """Return a map as an image in its own frame, which has the area and the files' names of a map."""
    layout, grid = plan.layout, plan.layout.maps[number]
    first = plan.images[layout.images_on(number)[0]]
    name = "merged" if len(layout.maps) == 1 else f"merged{number}"
    return replace(first, image_id=name, corner=grid.corner, rotated=False, height=grid.height, width=grid.width)


def with_looks(
    footprints: Footprints, fused: FusedMaps, number_of_map: int, start: tuple[int, int] | np.ndarray = (0, 0)
) -> Footprints:
    """Add the number of looks at a point inside each footprint.

    Args:
        footprints: in pixels from `start`
        fused: the maps
        number_of_map: that they are on
        start: column and row on the map
    """
    inside = shapely.get_coordinates(shapely.point_on_surface(footprints.polygons)) + start
    return replace(footprints, looks=fused.looks_at(number_of_map, inside))
