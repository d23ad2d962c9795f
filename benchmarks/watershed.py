"""Maps of a tile to buildings one by one: against scikit-image's watershed of the tile and GDAL's polygonizer.

The maps are those of the ground truth, blurred by 2 px, with a little noise: where neighbouring pixels are equal, the
order in which scikit-image floods them depends on the rest of the tile. The outlines of neighbours share their walls,
which shapely's simplification of each polygon by itself pulls apart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import shapely
from rasterio import features
from scipy import ndimage
from shapely.geometry import shape
from skimage.segmentation import watershed

from benchmarks.comparison import Row, medians, require
from benchmarks.oracle import ERRORS, NOISE_WIDTH, RECIPES, WATERSHED_LIMITS, blurred, crowded_labels, with_error
from benchmarks.polygons import same_sets
from benchmarks.street_map import SIZE
from sn6.datasets.spacenet6 import PIXEL
from sn6.footprints.polygonizer import Maps
from sn6.targets.mask import Mask
from sn6.targets.target import TileLabels

BLURRED = "blurred σ 2 px"  # of benchmarks.oracle
NOISE = 0.005  # standard deviation, of maps whose values are from 0.05 to 0.95
MIN_AREA, MIN_SEED = 80, 10  # px
SIMPLIFY = 1.0  # px
THRESHOLD, SEED, INNER = 0.5, 0.5, 0.3  # probabilities of building and of a seed, and the distance 1.5 m of 5 m
PEER = "skimage's watershed of the tile, GDAL, shapely"
Landscape = tuple[np.ndarray, np.ndarray]  # seeds by their number, and the surface that is flooded


@dataclass(frozen=True)
class Choice:
    """Heads with a polygonizer, and the same in plain NumPy.

    Attributes:
        recipe: name in `benchmarks.oracle.RECIPES`
        landscape: maps → seeds and surface
    """

    recipe: str
    landscape: Callable[[Maps], Landscape]


def rows(counts: Sequence[int] = tuple(WATERSHED_LIMITS), size: int = SIZE, repeats: int = 9) -> Iterator[Row]:
    """Yield a row for each choice of heads and each number of buildings on a tile of `size` pixels."""
    for count in counts:
        labels = crowded_labels(count, size)
        for name, choice in CHOICES.items():
            maps, polygonizer = maps_of(choice.recipe, labels), RECIPES[choice.recipe].polygonizer
            path, inputs = f"maps → polygons, {name}", f"{size}×{size}, {count} buildings, {BLURRED}"
            exact = replace(polygonizer, simplify=0.0)(maps, labels.valid, PIXEL)
            polygons, confidences = whole_tile_watershed(choice, maps, simplify=0.0)
            require(same_sets(exact.polygons, polygons), f"{path}, {inputs}: the polygons differ")
            difference = np.abs(np.sort(exact.confidences) - np.sort(confidences)).max(initial=0)
            require(difference < 1e-5, f"{path}, {inputs}: the confidences differ by {difference:.2g}")
            ours, theirs = partial(polygonizer, maps, labels.valid, PIXEL), partial(whole_tile_watershed, choice, maps)
            seconds = medians({"ours": ours, "theirs": theirs}, repeats)
            agreement = f"{len(exact)} polygons equal before they are simplified"
            limit = WATERSHED_LIMITS.get(count)
            yield Row(path, inputs, seconds["ours"], PEER, seconds["theirs"], agreement, max_ours=limit)


def maps_of(recipe: str, labels: TileLabels) -> dict[str, np.ndarray]:
    """Return the maps (1, h, w) of the heads of a recipe, blurred, with noise and without the values 0 and 1."""
    rng = np.random.default_rng(0)
    maps = {}
    for name, target in {"mask": Mask(), **RECIPES[recipe].targets}.items():
        exact = with_error(target.tile(labels), target, ERRORS[BLURRED], rng)
        noise = blurred(rng.standard_normal(exact.shape, dtype=np.float32), NOISE_WIDTH)
        maps[name] = (0.05 + 0.9 * exact + NOISE / noise.std() * noise).astype(np.float32)
    return maps


def whole_tile_watershed(choice: Choice, maps: Maps, simplify: float = SIMPLIFY) -> tuple[np.ndarray, np.ndarray]:
    """Flood the tile at once, and trace its regions one by one; returns polygons and their mean probabilities.

    A component without a seed is a seed itself.
    """
    seeds, surface = choice.landscape(maps)
    building = maps["mask"][0] > THRESHOLD
    components, count = ndimage.label(building)
    has_seed = np.isin(np.arange(count + 1), components[seeds > 0])
    markers = np.where(has_seed[components] | ~building, seeds, components + seeds.max())
    regions = watershed(surface, markers, mask=building).astype(np.int32)
    traced = [(shape(polygon), int(number)) for polygon, number in features.shapes(regions, building, connectivity=4)]
    kept = [(polygon, number) for polygon, number in traced if polygon.area >= MIN_AREA]
    means = ndimage.mean(maps["mask"][0], regions, [number for _, number in kept])
    return shapely.simplify(np.array([polygon for polygon, _ in kept], dtype=object), simplify), np.asarray(means)


def between_edges(maps: Maps) -> Landscape:
    """Return the parts of the mask without edges and contacts as seeds, and the mask as surface."""
    value = maps["mask"][0] * (1 - maps["contact"][0]) * (1 - maps["edge"][0])
    seeds, count = ndimage.label((value > SEED) & (maps["mask"][0] > THRESHOLD))
    sizes = ndimage.sum_labels(np.ones(seeds.shape), seeds, np.arange(count + 1))
    sizes[0] = 0
    return np.where(sizes[seeds] >= MIN_SEED, seeds, 0), -maps["mask"][0]


def inner_parts(maps: Maps) -> Landscape:
    """Return the pixels far from a border as seeds, and the distance as surface."""
    distance = maps["distance"][0]
    seeds, _ = ndimage.label((distance > INNER) & (maps["mask"][0] > THRESHOLD))
    return seeds, -distance


CHOICES: Mapping[str, Choice] = {
    "edge and contact": Choice("edge and contact", between_edges),
    "distance": Choice("distance to the own border", inner_parts),
}
