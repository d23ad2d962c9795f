"""Cut images into tiles."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from sn6.datasets.image_files import ImageHeader, image_names


def cut_into_tiles(headers: Sequence[ImageHeader], tile_size: int) -> dict[str, tuple[ImageHeader, slice, slice]]:
    """Return image id → image, rows and columns of each tile: as few as have at most `tile_size` rows and columns."""
    names = image_names([header.path for header in headers])
    places: dict[str, tuple[ImageHeader, slice, slice]] = {}
    for header in headers:
        name = names[header.path]
        down, across = parts_of(header.grid.height, tile_size), parts_of(header.grid.width, tile_size)
        for i, rows in enumerate(down):
            for j, columns in enumerate(across):
                image_id = name if len(down) == len(across) == 1 else f"{name}_r{i}_c{j}"
                places[image_id] = (header, rows, columns)
    return places


@lru_cache(maxsize=64)  # thousands of images have few sizes
def parts_of(length: int, most: int) -> tuple[slice, ...]:
    """Return the parts of a length, as few as are at most `most` long, of about equal lengths."""
    edges = np.linspace(0, length, -(-length // most) + 1).round().astype(int).tolist()
    return tuple(slice(start, stop) for start, stop in pairwise(edges))
