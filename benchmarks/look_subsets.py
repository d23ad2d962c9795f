"""Fuse a tile with subsets of those that overlap it, and count what its footprints find."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from sn6.data.store_layers import write_array
from sn6.footprints import Footprints, Labels
from sn6.footprints.blocks import footprints_by_blocks
from sn6.heads import Heads
from sn6.metrics.matching import make_valid
from sn6.metrics.scorecard import score_tile
from sn6.prediction.fused_map import fuse, intersection
from sn6.prediction.fused_view import FusedView
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Layout
from sn6.prediction.plan import Plan
from sn6.prediction.workers import read_maps, to_file_frame

COLUMNS = ("tp", "fp", "fn", "touching_tp", "touching_fp", "touching_fn", "tiles", "looks", "pixels")


class Variant(NamedTuple):
    """Which tiles are fused.

    Attributes:
        tiles: at most so many, the tile itself included; None for all
        both_sides: whether those of the other side are among them
    """

    tiles: int | None
    both_sides: bool


SINGLE = Variant(1, both_sides=False)  # not fused at all
VARIANTS = (SINGLE, *(Variant(tiles, both_sides) for both_sides in (False, True) for tiles in (2, 4, 8, None)))


@dataclass(frozen=True)
class Measurement:
    """The fusing of a tile with others.

    Attributes:
        plan: of a prediction with fusion whose outputs are all stored
        heads: of the outputs
        draws: number of random subsets of each variant
        seed: of the subsets
    """

    plan: Plan
    heads: Heads
    draws: int
    seed: int

    def path(self, number: int) -> Path:
        """Return the file of a tile: COLUMNS of each variant and draw."""
        return self.plan.folder / f"counts{number}.npy"

    def run(self, tile: tuple[int, Labels]) -> None:
        """Fuse, polygonise and score a tile in every variant; the same subset only once.

        Args:
            tile: its number and its ground truth
        """
        number, truth = tile
        rows = np.empty((len(VARIANTS), self.draws, len(COLUMNS)), dtype=np.int64)
        of_subset: dict[tuple[int, ...], list[int]] = {}
        for draw in range(self.draws):
            for row, variant in enumerate(VARIANTS):
                subset = subset_of(self.plan.layout, number, variant, (self.seed, draw, number))
                if subset not in of_subset:
                    of_subset[subset] = self.count(number, truth, subset)
                rows[row, draw] = of_subset[subset]
        write_array(self.path(number), rows)

    def count(self, number: int, truth: Labels, subset: Sequence[int]) -> list[int]:
        """Return COLUMNS of a tile that is fused with a subset."""
        image = self.plan.images[number]
        proposed, looks = self.fused(number, subset) if subset else self.single(number)
        scored = score_tile(image.image_id, image.corner, truth, proposed, None, image.pixel_metres)
        sides = (scored.counts, scored.instances.touching)
        counts = [count for one in sides for count in (one.tp, one.fp, one.fn)]
        return [*counts, max(len(subset), 1), int(looks.sum()), len(looks)]

    def single(self, number: int) -> tuple[Footprints, Int64[np.ndarray, " valid"]]:
        """Return the footprints of a tile as sn6.predict makes them, and the number of looks at its valid pixels: 1."""
        image = self.plan.images[number]
        outputs = self.plan.mosaic(number).read(slice(0, image.height), slice(0, image.width))
        return self.footprints(outputs, image), np.ones(np.isfinite(outputs[0]).sum(), dtype=np.int64)

    def fused(self, number: int, subset: Sequence[int]) -> tuple[Footprints, Int64[np.ndarray, " valid"]]:
        """Return the footprints of a tile from the mean of a subset, and the number of looks at its valid pixels."""
        plan = self.plan
        assert plan.fusion is not None
        view, rectangle = FusedView(plan, number, self.heads), plan.layout.rectangle(number)
        mean, looks = fuse(plan.layout, subset, rectangle, plan.mosaic, self.heads, plan.fusion)
        outputs = view.at_own_pixels(mean, rectangle)
        return view.moved(self.footprints(outputs, view.image)), looks[np.isfinite(outputs[0])]

    def footprints(self, outputs: Float32[np.ndarray, "k h w"], image: Image) -> Footprints:
        """Return the footprints of an image in the frame of its file, with valid polygons."""
        read = partial(read_maps, lambda rows, columns: outputs[:, rows, columns], self.heads)
        size = image.height, image.width
        chunks = [*footprints_by_blocks(read, *size, self.plan.polygonizer, image.pixel_metres)]
        polygons, confidences = (
            np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("polygons", "confidences")
        )
        return to_file_frame(Footprints(make_valid(polygons), confidences), image)


def subset_of(layout: Layout, number: int, variant: Variant, seed: Sequence[int]) -> tuple[int, ...]:
    """Return the images that are fused for an image, itself among them, ascending; none where it is not fused.

    Args:
        layout: the maps of the images
        number: of the image
        variant: how many, and from which side
        seed: of the order in which they are taken, which is the same for all variants
    """
    if variant == SINGLE or layout.place(number) is None:
        return ()
    generator = np.random.default_rng(seed)
    same, other = (generator.permutation(side).tolist() for side in neighbours(layout, number))
    turns = [one for pair in zip_longest(other, same) for one in pair if one is not None]
    order = [number, *(turns if variant.both_sides else same)]
    return tuple(sorted(order[: variant.tiles]))


def neighbours(layout: Layout, number: int) -> tuple[list[int], list[int]]:
    """Return the other images with pixels on those of an image: of its own side, and of the other side."""
    near = {one for block in layout.blocks_of(number) for one in layout.images_of(block)} - {number}
    sides: tuple[list[int], list[int]] = ([], [])
    for one in sorted(near):
        shared = intersection(layout.rectangle(one), layout.rectangle(number))
        if all(pixels.start < pixels.stop for pixels in shared):
            sides[layout.images[one].from_south != layout.images[number].from_south].append(one)
    return sides
