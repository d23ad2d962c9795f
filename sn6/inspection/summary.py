"""Summarise the values of an archive by product and by strip."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sn6.datasets.declaration import DataSet, Split
from sn6.inspection.images import Image
from sn6.inspection.tiles import InspectedTile


@dataclass(frozen=True)
class ProductSummary:
    """The values of the images of one product, in decibels (radar) or counts (optical).

    Attributes:
        tiles: number of tiles
        nodata_fraction: fraction of the pixels that are nodata
        minimum, mean, std, maximum: of each band over valid pixels, NaN where there are none
        not_finite, negative: numbers of such values
    """

    tiles: int
    nodata_fraction: float
    minimum: list[float]
    mean: list[float]
    std: list[float]
    maximum: list[float]
    not_finite: int
    negative: int


def summarise_images(images: Sequence[Image]) -> ProductSummary:
    """Summarise images of one product; mean and std are those of the normalisation, over valid pixels."""
    bands = len(images[0].minimum)
    statistics = [image.statistics for image in images]
    count = sum(tile.pixels for tile in statistics)
    total = np.sum([tile.total for tile in statistics], axis=0)
    squares = np.sum([tile.squares for tile in statistics], axis=0)
    mean = total / count if count else np.full(bands, np.nan)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return ProductSummary(
        tiles=len(images),
        nodata_fraction=1 - sum(image.valid for image in images) / sum(image.pixels for image in images),
        minimum=np.fmin.reduce([image.minimum for image in images]).tolist(),
        mean=mean.tolist(),
        std=std.tolist(),
        maximum=np.fmax.reduce([image.maximum for image in images]).tolist(),
        not_finite=sum(image.not_finite for image in images),
        negative=sum(image.negative for image in images),
    )


def summarise_products(tiles: Sequence[InspectedTile], data_set: DataSet) -> dict[str, ProductSummary]:
    """Summarise the images of these tiles by product, in the order in which the data set declares them."""
    images: defaultdict[str, list[Image]] = defaultdict(list)
    for tile in tiles:
        for product, image in tile.images.items():
            images[product].append(image)
    return {product: summarise_images(images[product]) for product in data_set.products if product in images}


@dataclass(frozen=True)
class StripSummary:
    """The tiles of one strip.

    Attributes:
        name: start and end of the pass in UTC
        split: split of the tiles
        orientation: 0 imaged from the north, 1 from the south, None where the table lacks the strip
        tiles: number of tiles
        buildings: number of footprints in their labels
        products: product → values
    """

    name: str
    split: Split
    orientation: int | None
    tiles: int
    buildings: int
    products: dict[str, ProductSummary]


def summarise_strips(
    tiles: Sequence[InspectedTile], orientations: dict[str, int], data_set: DataSet
) -> list[StripSummary]:
    """Summarise the strips of each split, in the order of their passes."""
    groups: defaultdict[tuple[Split, str], list[InspectedTile]] = defaultdict(list)
    for tile in tiles:
        groups[tile.split, tile.strip].append(tile)
    return [
        StripSummary(
            name,
            split,
            orientations.get(name),
            len(group),
            sum(tile.buildings or 0 for tile in group),
            summarise_products(group, data_set),
        )
        for (split, name), group in groups.items()
    ]
