"""Search for the operating point with the highest F1 on tiles, whose maps are passed one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import shapely
import torch
from jaxtyping import Bool, Int, Int32

from sn6.callbacks.operating_point import (
    Choice,
    Point,
    Scores,
    best_point,
    candidates_of,
    grid,
    grid_around,
    refinements_of,
)
from sn6.data.cross_fitting import Half
from sn6.data.dataset import TileDataset
from sn6.footprints.polygonizer import Maps, Polygonizer
from sn6.metrics.label_matching import match_labels
from sn6.metrics.matching import MIN_AREA, Counts, counted_area
from sn6.metrics.point_table import PointTable
from sn6.targets.rasterize import rasterize_instances


class PointSearch:
    """Score tiles at several operating points, and choose the best one of all tiles and of each half of them.

    Points are compared by the IoU of pixels, which is cheaper than that of polygons. The polygonizer's own candidates
    are a coarse grid: a second pass over the tiles tries a finer one around the best point of each half, and of all
    tiles, and there the polygonizer's refinements too.

    Args:
        dataset: the tiles, of which only the labels are read
        halves: of the indices of the tiles, see `sn6.data.cross_fitting.cross_fit`
        given: field of the polygonizer → values, all of whose combinations are tried; None tries the polygonizer's
            own, coarse to fine
    """

    def __init__(
        self, dataset: TileDataset, halves: tuple[Half, Half], given: Mapping[str, Sequence[float]] | None
    ) -> None:
        self.dataset = dataset
        self.halves = halves
        self.given = given
        self.points: list[Polygonizer] = []  # of the current pass
        self.tables: list[tuple[list[Polygonizer], PointTable]] = []  # of the passes

    @property
    def is_refining(self) -> bool:
        """Return whether the current pass is the finer one."""
        return len(self.tables) > 1

    @property
    def table(self) -> PointTable:
        """Return the table of the current pass."""
        return self.tables[-1][1]

    def start_pass(self) -> None:
        """Make an empty table for the points of the pass."""
        self.tables.append((self.points, PointTable(len(self.dataset), len(self.points))))

    def score(self, index: int, maps: Maps, valid: Bool[np.ndarray, "h w"]) -> tuple[int, list[Counts]]:
        """Return the index and the counts of a tile at all points of the pass.

        Args:
            index: of the tile
            maps: of the heads, in the sensor's frame; buildings are divided once for all minimum areas
            valid: false on nodata
        """
        truth, buildings = label_image(self.dataset, index, *valid.shape)
        pixel_size = self.dataset.source.product.grid
        counts: list[Counts] = []
        for polygonizer, points in groupby(self.points, lambda point: replace(point, min_area=0.0)):
            min_pixels = [max(point.min_area, MIN_AREA) / pixel_size**2 for point in points]
            counts += match_labels(polygonizer.instances(maps, valid, pixel_size), truth, buildings, min_pixels)
        return index, counts

    def scores(self, tiles: Int[np.ndarray, " n"]) -> Scores:
        """Return the counts of tiles at all points that were tried."""
        index = torch.from_numpy(tiles)
        return {
            point: counts
            for points, table in self.tables
            for point, counts in zip(points, table.pool(index), strict=True)
        }

    def choose(self, predict: Callable[[], Any], config: Polygonizer) -> Choice | None:
        """Try the candidates on the tiles, and choose; None where none of them matches a building.

        Args:
            predict: starts a pass, and enters the counts of all tiles into its table
            config: polygonizer of the config
        """
        candidates, self.tables = candidates_of(config, self.given), []
        refinements = refinements_of(config, candidates) if self.given is None else {}
        fields, everything = (*refinements, *candidates), np.concatenate([half.tiles for half in self.halves])
        choosers = [everything, *(half.choosers for half in self.halves)]
        self.points = grid(config, candidates)
        predict()
        tried = [self.points] * len(choosers)
        if self.given is None:
            coarse = [best_point(self.scores(tiles), config, fields) for tiles in choosers]
            finer = [grid_around(point, candidates, refinements) if point in self.points else [] for point in coarse]
            tried = [[*self.points, *points] for points in finer]
            new = {point for points in finer for point in points}.difference(self.points)
            self.points = sorted(new, key=attrgetter(*fields))
            if self.points:
                predict()
        if not any(counts.tp for counts in self.scores(everything).values()):
            return None
        sizes = [0, *(len(half.tiles) for half in self.halves)]
        points = [self._chosen(*one, config, fields) for one in zip(choosers, sizes, tried, strict=True)]
        cross_fitted = {
            self.dataset.tiles[index]: point.polygonizer
            for half, point in zip(self.halves, points[1:], strict=True)
            for index in half.tiles
        }
        return Choice(points[0], tuple(points[1:]), cross_fitted, fields, self.scores(everything))

    def _chosen(
        self,
        choosers: Int[np.ndarray, " n"],
        tiles: int,
        tried: list[Polygonizer],
        config: Polygonizer,
        fields: tuple[str, ...],
    ) -> Point:
        """Return the best of the points that were tried for the tiles that choose, to score `tiles` others."""
        scores = self.scores(choosers)
        best = best_point({point: scores[point] for point in tried}, config, fields)
        return Point(best, scores[best].f1 if best in tried else 0.0, len(choosers), tiles)


def label_image(dataset: TileDataset, index: int, height: int, width: int) -> tuple[Int32[np.ndarray, "h w"], int]:
    """Return the number of the building at each pixel of a tile, in the sensor's frame, and the number of buildings.

    Only buildings that are large enough to count are in it.
    """
    polygons = dataset.labels(index).polygons
    counted_ones = polygons[shapely.area(polygons) >= counted_area(dataset.source.product.grid)]
    image = rasterize_instances(counted_ones, height, width)
    return image[::-1, ::-1] if dataset.is_rotated(index) else image, len(counted_ones)
