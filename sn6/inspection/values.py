"""The values of an archive by product and by strip."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sn6.datasets.layout import PRODUCTS
from sn6.inspection.images import Image
from sn6.inspection.tiles import Inspected


@dataclass(frozen=True)
class Values:
    """What images of one product hold; per band where it is a list, over valid pixels, NaN where there is none.

    Attributes:
        tiles: how many
        nodata: share of the pixels
        low, mean, deviation, high: in decibels of the radar, in counts of the optical products
        infinite, negative: numbers of such values
    """

    tiles: int
    nodata: float
    low: list[float]
    mean: list[float]
    deviation: list[float]
    high: list[float]
    infinite: int
    negative: int


def values_of(images: Sequence[Image]) -> Values:
    """Of one product. Mean and deviation are those that normalisation uses, from the sums of every finite image."""
    bands = len(PRODUCTS[images[0].product].bands)
    sums = [image.sums for image in images if image.sums is not None]
    count = sum(tile.pixels for tile in sums)
    total, squares = (np.sum([getattr(t, of) for t in sums] or [[0.0] * bands], axis=0) for of in ("total", "squares"))
    mean = total / count if count else np.full(bands, np.nan)
    deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return Values(
        tiles=len(images),
        nodata=1 - sum(image.valid for image in images) / sum(image.pixels for image in images),
        low=np.fmin.reduce([image.low for image in images]).tolist(),
        mean=mean.tolist(),
        deviation=deviation.tolist(),
        high=np.fmax.reduce([image.high for image in images]).tolist(),
        infinite=sum(image.infinite for image in images),
        negative=sum(image.negative for image in images),
    )


def by_product(tiles: Sequence[Inspected]) -> dict[str, Values]:
    """Of all images of each product of these tiles."""
    images: defaultdict[str, list[Image]] = defaultdict(list)
    for tile in tiles:
        for product, image in tile.images.items():
            images[product].append(image)
    return {product: values_of(images[product]) for product in PRODUCTS if product in images}


@dataclass(frozen=True)
class Strip:
    """What one pass holds.

    Attributes:
        name: start and end in UTC
        split: "train" or "test_public"
        orientation: 0 imaged from the north, 1 from the south, None where the table lacks it
        tiles: how many
        buildings: footprints in their labels
        products: values of each
    """

    name: str
    split: str
    orientation: int | None
    tiles: int
    buildings: int
    products: dict[str, Values]


def by_strip(tiles: Sequence[Inspected], orientations: dict[str, int]) -> list[Strip]:
    """The strips of each split in the order of their flights."""
    found: defaultdict[tuple[Any, str], list[Inspected]] = defaultdict(list)
    for tile in tiles:
        found[tile.split, tile.strip].append(tile)
    return [
        Strip(
            name,
            split,
            orientations.get(name),
            len(those),
            sum(tile.buildings or 0 for tile in those),
            by_product(those),
        )
        for (split, name), those in found.items()
    ]
