"""Keep images that a network was trained on apart from others when images are fused."""

from collections.abc import Sequence

import numpy as np
import shapely

from sn6.data.ground import Ground
from sn6.errors import UserError
from sn6.prediction.map_grid import Layout, box_of


def check_sides(layout: Layout, trained_on: Sequence[Ground | None]) -> None:
    """Raise a UserError where an image that networks were trained on would be fused with one that they were not.

    A score of the other image would then be made from outputs for buildings whose labels were learned. Images that are
    registered are fused with others that they may be moved onto, too.

    Args:
        layout: the maps of the images
        trained_on: training area of each network, where it is known
    """
    for number, grid in enumerate(layout.maps):
        images = [layout.images[one] for one in layout.images_on(number)]
        boxes = np.array([box_of(image) for image in images])
        ground = Ground(shapely.bounds(boxes), grid.crs)
        seen = np.zeros(len(boxes), dtype=bool)
        for area in trained_on:
            seen |= ground.overlapping(area) if area else False
        trained, others = boxes[seen], np.flatnonzero(~seen)
        margin = layout.margin(layout.images_on(number)[0]) * grid.pixel
        reached = shapely.buffer(boxes[others], 2 * margin, join_style="mitre")  # both may be moved
        other, one = shapely.STRtree(trained).query(reached, predicate="intersects")
        is_shared = shapely.area(shapely.intersection(reached[other], trained[one])) > 0
        if is_shared.any():
            mixed = [images[i].image_id for i in np.unique(others[other[is_shared]])]
            raise UserError(
                f"revisits=true would fuse {mixed[0]} (and {len(mixed) - 1} more) with images that the network was "
                "trained on; give tiles= of one kind, or leave revisits=true out",
                kind="leakage",
                key="revisits",
                value=mixed[0],
            )
