"""Draw the maps that a network gives for a tile: a scalar by its value, a vector by its direction and length."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float32
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import hsv_to_rgb
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from sn6.plots.tiles import MARK, hide_axis

Maps: TypeAlias = Mapping[str, Float32[np.ndarray, "_ h w"]]  # name → (k, h, w), after activation
NO_MAPS: Maps = {}
COLOURS = colormaps["inferno"].with_extremes(bad="0.5")  # grey where there is no value
WHEEL = 64  # pixels; size of the key to the directions


def panels(maps: Maps) -> Iterator[tuple[str, Float32[np.ndarray, "_ h w"]]]:
    """Return the title and the values of each panel: one for a scalar or a vector (k = 1 or 2), else one per channel.

    A map of two channels is a vector: rows (down), columns (to the right).
    """
    for name, values in maps.items():
        if len(values) <= 2:
            yield name, values
        else:
            yield from ((f"{name}, channel {i}", channel[None]) for i, channel in enumerate(values))


def rotate_maps(maps: Maps) -> dict[str, Float32[np.ndarray, "_ h w"]]:
    """Rotate maps by 180°, and with them the directions of vectors."""
    return {name: values[:, ::-1, ::-1] * (-1 if len(values) == 2 else 1) for name, values in maps.items()}


def draw_map(axis: Axes, title: str, values: Float32[np.ndarray, "k h w"]) -> None:
    """Draw a scalar with a colour bar (k = 1), or a vector with a key to its directions (k = 2)."""
    height, width = values.shape[1:]
    extent = (0.0, width, height, 0.0)
    hide_axis(axis)
    axis.set_title(title)
    if len(values) == 2:
        longest = max(float(np.nanmax(np.hypot(*values), initial=0)), 1e-6)
        axis.imshow(vector_colours(values, longest), extent=extent)
        draw_key(axis, longest)
        return
    low, high = limits(values)
    image = axis.imshow(values[0], cmap=COLOURS, vmin=low, vmax=high, extent=extent)
    ends = (np.nanmin(values, initial=low) < low, np.nanmax(values, initial=high) > high)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(ends, "neither")
    draw_colour_bar(axis, image, extend)


def draw_colour_bar(axis: Axes, drawn: ScalarMappable, extend: str) -> None:
    """Draw a colour bar below a panel; beside it, it would make the panel narrower than others."""
    panel: Any = axis.transAxes
    inches = axis.figure.dpi_scale_trans + ScaledTranslation(0, 0, panel)  # from its lower edge
    bar = axis.inset_axes((0.12, -0.2, 0.76, 0.1), transform=blended_transform_factory(panel, inches))
    axis.figure.colorbar(drawn, cax=bar, orientation="horizontal", extend=extend, ticks=[])
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
    for x, end, side in ((0.1, drawn.norm.vmin, "right"), (0.9, drawn.norm.vmax, "left")):
        axis.annotate(f"{end:.3g}", (x, 0), (0, -11), ha=side, **style)  # of the panel: the layout leaves room for it


def limits(values: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Return the ends of the colour bar: 0 and 1, further where more than 1 value of 200 is beyond."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, [0.5, 99.5])
    return min(float(low), 0.0), max(float(high), 1.0)


def vector_colours(vectors: Float[np.ndarray, "2 h w"], longest: float) -> Float[np.ndarray, "h w 3"]:
    """Return the direction of each vector (rows, columns) as hue, the root of its length as brightness, NaN as grey.

    The root, because the vectors of a hall are ten times as long as those of the houses beside it.

    Args:
        vectors: rows (down), columns (to the right)
        longest: length of full brightness
    """
    down, right = np.nan_to_num(vectors)
    hue = np.arctan2(down, right) / (2 * np.pi) % 1
    brightness = np.sqrt(np.clip(np.hypot(down, right) / longest, 0, 1))
    colours = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.85), brightness], axis=-1))
    return np.where(np.isnan(vectors).any(axis=0)[..., None], 0.5, colours)


def draw_key(axis: Axes, longest: float) -> None:
    """Draw a disc of all directions in the corner of a map of vectors, at its edge the longest ones."""
    steps = np.linspace(-longest, longest, WHEEL)
    vectors = np.stack(np.meshgrid(steps, steps, indexing="ij"))
    key = axis.inset_axes((0.86, 0.02, 0.12, 0.12))
    outside = np.hypot(*vectors) > longest
    key.imshow(np.dstack([vector_colours(vectors, longest), ~outside]), extent=(0, 1, 1, 0))
    hide_axis(key)
    axis.text(0.85, 0.02, f"{longest:.3g}", transform=axis.transAxes, ha="right", va="bottom", **MARK)
