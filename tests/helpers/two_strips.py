"""A hand-made archive of two tiles of different strips and look directions."""

from pathlib import Path

from shapely import Polygon, box

from helpers.handmade import NORTH, OTHER_STRIP, WEST, speckle, write_labels, write_orientations, write_tile

CORNERS = [(WEST, NORTH), (WEST + 500, NORTH)]


def write_two_strips(root: Path) -> tuple[list[str], dict[str, list[Polygon]]]:
    """Write tiles of 64 px, 500 m apart; the first has nodata in its left 10 columns.

    Returns:
        Their image ids, and proposals for each: two true positives on the first, a false positive on the second.
    """
    first, second = speckle(), speckle()
    first[:, :, :10] = 0
    names = [
        write_tile(root, "SAR-Intensity", first, number=1),
        write_tile(root, "SAR-Intensity", second, number=2, strip=OTHER_STRIP, west=CORNERS[1][0]),
    ]
    write_orientations(root)
    at_border, near, far, house = box(5, 0, 20, 20), box(25, 30, 45, 50), box(40, 0, 60, 20), box(0, 0, 20, 20)
    rows = [(names[0], at_border), (names[0], near), (names[0], far), (names[1], house)]
    write_labels(root, "".join(f'{name},{i},"{polygon.wkt}",5,,\n' for i, (name, polygon) in enumerate(rows)))
    return names, {names[0]: [at_border, far], names[1]: [box(40, 40, 60, 60)]}
