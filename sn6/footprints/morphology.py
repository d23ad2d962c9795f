"""Remove small holes, spikes and thin bridges from numbered components of pixels."""

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage


def fill_holes(
    components: Int32[np.ndarray, "height width"], is_ground: Bool[np.ndarray, "height width"], max_pixels: float
) -> Int32[np.ndarray, "height width"]:
    """Fill the holes of fewer than `max_pixels` pixels of components, each with the number of its component.

    A hole that contains a pixel of another component or of nodata stays.

    Args:
        components: numbers of 4-connected components, from 1; 0 elsewhere
        is_ground: whether a pixel is valid and of no component, those with another number in `components` or none
            included
        max_pixels: not necessarily an integer
    """
    holes, _ = ndimage.label(components == 0, structure=np.ones((3, 3)))
    sizes = np.bincount(holes.ravel())
    is_hole = sizes < max_pixels
    is_hole[0] = False
    for outside in (holes[~is_ground], holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        is_hole[outside] = False
    lowest, highest = np.full(len(sizes), np.iinfo(np.int32).max), np.zeros_like(sizes)
    rows, columns = np.nonzero(is_hole[holes])
    for beside in ((rows - 1, columns), (rows + 1, columns), (rows, columns - 1), (rows, columns + 1)):
        of_component = components[beside] > 0
        hole, number = holes[rows, columns][of_component], components[beside][of_component]
        np.minimum.at(lowest, hole, number)
        np.maximum.at(highest, hole, number)
    filled = np.where(is_hole & (lowest == highest), highest, 0).astype(np.int32)
    return components + filled[holes]


def open_mask(mask: Bool[np.ndarray, "height width"], radius: float) -> Bool[np.ndarray, "height width"]:
    """Return the pixels of a mask that a disc inside of it covers (opening).

    The border of the image cuts buildings, so that what touches it continues there with the same width.

    Args:
        mask: of any components: those that touch at a corner only are opened one by one
        radius: of the disc in pixels; it consists of the pixels whose centre is not farther from its own
    """
    width = int(radius)
    if not width:
        return mask
    outside = np.pad(~mask, 2 * width, mode="edge")
    return _dilate(~_dilate(outside, radius), radius)[2 * width : -2 * width, 2 * width : -2 * width]


def _dilate(mask: Bool[np.ndarray, "height width"], radius: float) -> Bool[np.ndarray, "height width"]:
    """Return the pixels at most `radius` pixels from one of the mask: rows of the disc, one by one."""
    result, row, reach = np.zeros_like(mask), mask.copy(), 0  # row: of the disc, with `reach` pixels on each side
    for down in range(int(radius), -1, -1):
        while (reach + 1) ** 2 + down**2 <= radius**2:
            reach += 1
            row[:, reach:] |= mask[:, : mask.shape[1] - reach]
            row[:, : mask.shape[1] - reach] |= mask[:, reach:]
        result[down:] |= row[: len(mask) - down]
        result[: len(mask) - down] |= row[down:]
    return result
