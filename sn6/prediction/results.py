"""The files that a prediction leaves, joined from the parts of its images."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import shapely

from sn6.footprints import Footprints
from sn6.footprints.ground import to_ground, to_pixels
from sn6.footprints.merging import best_of_overlapping, joined_halves
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter
from sn6.formats.writer import FootprintWriter, Writer
from sn6.prediction.images import Image
from sn6.prediction.partial_results import read_part
from sn6.prediction.workers import Plan


def write_footprints(out: Path, plan: Plan) -> int:
    """`proposals.csv`, `footprints.geojson` and `footprints.parquet` of all images; returns how many there are."""
    count = 0
    with (
        opened(ChallengeCSVWriter, out / "proposals.csv", plan) as submission,
        opened(GeoJSONWriter, out / "footprints.geojson", plan) as collection,
        opened(GeoParquetWriter, out / "footprints.parquet", plan) as table,
    ):
        files: tuple[FootprintWriter, ...] = (submission, collection, table)
        for number, image in enumerate(plan.images):
            for piece in read_part(plan.part(number)):
                count += len(piece)
                for file in files:
                    file.write(image.image_id, image.corner, piece)
    return count


def opened(writer: Callable[[Path, str | None, float], Writer], path: Path, plan: Plan) -> Writer:
    """A writer in the CRS that the images share."""
    return writer(path, plan.images[0].crs, plan.images[0].pixel)


def write_merged(out: Path, plan: Plan) -> int:
    """`merged.geojson` and `merged.parquet`: one footprint a building for the whole area; returns how many there are.

    See `sn6.footprints.merging` for the rule. Memory holds the footprints of all images.
    """
    pieces = [(i, image, piece) for i, image in enumerate(plan.images) for piece in read_part(plan.part(i))]
    owners = np.repeat([i for i, _, _ in pieces], [len(piece) for _, _, piece in pieces])
    cut = np.concatenate([is_cut(piece.polygons, image) for _, image, piece in pieces])
    ground = np.concatenate([to_ground(piece.polygons, image.corner, image.pixel) for _, image, piece in pieces])
    found = Footprints(ground, np.concatenate([piece.confidences for _, _, piece in pieces]))
    kept = best_of_overlapping(found.polygons, found.confidences, owners, cut)
    polygons, confidences, best = joined_halves(found.polygons[kept], found.confidences[kept], cut[kept])
    owners = owners[kept][best]
    order = np.argsort(owners, kind="stable")
    pixel = plan.images[0].pixel
    with (
        opened(GeoJSONWriter, out / "merged.geojson", plan) as collection,
        opened(GeoParquetWriter, out / "merged.parquet", plan) as table,
    ):
        for number, chosen in by_owner(owners[order], order):
            image = plan.images[number]
            corners = np.tile(np.array(image.corner, dtype=np.float64), (len(chosen), 1))
            merged = Footprints(to_pixels(polygons[chosen], corners, pixel), confidences[chosen])
            collection.write(image.image_id, image.corner, merged)
            table.write(image.image_id, image.corner, merged)
    return len(polygons)


def by_owner(owners: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each owner with what is its own."""
    numbers, starts = np.unique(owners, return_index=True)
    yield from zip(numbers.tolist(), np.split(chosen, starts[1:]), strict=False)


def is_cut(polygons: np.ndarray, image: Image) -> np.ndarray:
    """Whether footprints (n), in pixels of the image, meet its edge (n)."""
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    return (bounds[:, :2] <= 0).any(axis=1) | (bounds[:, 2:] >= (image.width, image.height)).any(axis=1)
