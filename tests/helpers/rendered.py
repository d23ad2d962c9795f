"""Read the pixels of figures."""

import matplotlib.image
import numpy as np

from sn6.plots.tiles import save_figure

BLACK = np.zeros((64, 64), np.float32)


def pixels_of(figure, path):
    """Save the figure and read it, rows from the top, 0 to 1."""
    save_figure(figure, path / "figure.png")
    return matplotlib.image.imread(path / "figure.png")[..., :3]


def window(axis, pixels):
    """Return the pixels of a panel."""
    box = axis.get_window_extent()
    height = len(pixels)
    return pixels[round(height - box.y1) : round(height - box.y0), round(box.x0) : round(box.x1)]


def close(pixels, colour, tolerance=0.02):
    """Return where the pixels have a colour."""
    return (np.abs(pixels - colour) < tolerance).all(axis=-1)
