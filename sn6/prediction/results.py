"""Write the files of a prediction from the partial results of its images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely

from sn6.data.source import Source
from sn6.footprints import Footprints
from sn6.footprints.ground import to_ground, to_pixels
from sn6.footprints.merging import join_halves, suppress_overlaps
from sn6.formats.challenge_csv import ChallengeCSVWriter
from sn6.formats.geojson import GeoJSONWriter
from sn6.formats.geoparquet import GeoParquetWriter
from sn6.formats.writer import common_crs, to_crs
from sn6.prediction.images import Image
from sn6.prediction.partial_results import read_part
from sn6.prediction.pictures import draw_pictures
from sn6.prediction.plan import Plan


def write_results(out: Path, plan: Plan, merge: bool, pictures: int, source: Source) -> dict[str, int]:
    """Write all files of a prediction and return the number of images and footprints.

    Args:
        out: folder to write to
        plan: a plan whose images are finished
        merge: whether to write merged footprints too
        pictures: number of images to draw
        source: product and bands of the images
    """
    counts = {"images": len(plan.images), "footprints": write_footprints(out, plan)}
    if merge:
        counts["merged"] = write_merged(out, plan)
    if pictures:
        draw_pictures(out / "pictures", plan, source, pictures)
    return counts


def write_footprints(out: Path, plan: Plan) -> int:
    """Write `proposals.csv`, `footprints.geojson` and `footprints.parquet`, and return the number of footprints."""
    count, frame = 0, frame_of(plan)
    with (
        ChallengeCSVWriter(out / "proposals.csv", plan.classes) as csv,
        GeoJSONWriter(out / "footprints.geojson", *frame, plan.classes) as geojson,
        GeoParquetWriter(out / "footprints.parquet", *frame, plan.classes) as geoparquet,
    ):
        for number, image in enumerate(plan.images):
            for chunk in read_part(plan.part(number)):
                count += len(chunk)
                csv.write(image.image_id, image.corner, chunk)
                for writer in (geojson, geoparquet):
                    writer.write(image.image_id, image.corner, chunk, image.crs, image.pixel)
    return count


def frame_of(plan: Plan) -> tuple[str | None, float]:
    """Return the CRS of files of footprints, and the pixel size of the first image."""
    return common_crs(image.crs for image in plan.images), plan.images[0].pixel


def write_merged(out: Path, plan: Plan) -> int:
    """Write `merged.geojson` and `merged.parquet`, one footprint per building, and return their number.

    The class of a building that tile edges cut is that of its most confident part.
    `sn6.footprints.merging` has the rules. The footprints of all images are in memory at the same time.
    """
    chunks = [(i, image, chunk) for i, image in enumerate(plan.images) for chunk in read_part(plan.part(i))]
    numbers = np.repeat([i for i, _, _ in chunks], [len(chunk) for _, _, chunk in chunks])
    cut = np.concatenate([touches_edge(chunk.polygons, image) for _, image, chunk in chunks])
    crs, pixel = frame_of(plan)
    polygons = np.concatenate(
        [to_crs(to_ground(chunk.polygons, image.corner, image.pixel), image.crs, crs) for _, image, chunk in chunks]
    )
    confidences = np.concatenate([chunk.confidences for _, _, chunk in chunks])
    classes = [chunk.classes for _, _, chunk in chunks if chunk.classes is not None]  # of all chunks or of none
    kept = suppress_overlaps(polygons, confidences, numbers, cut)
    polygons, confidences, best = join_halves(polygons[kept], confidences[kept], cut[kept])
    numbers = numbers[kept][best]
    class_of_building = np.concatenate(classes)[kept][best] if classes else None
    with (
        GeoJSONWriter(out / "merged.geojson", crs, pixel, plan.classes) as geojson,
        GeoParquetWriter(out / "merged.parquet", crs, pixel, plan.classes) as geoparquet,
    ):
        for number, indices in group_by_image(numbers):
            image = plan.images[number]
            corners = np.tile(np.array(image.corner, dtype=np.float64), (len(indices), 1))
            on_ground = to_crs(polygons[indices], crs, image.crs)
            of_image = None if class_of_building is None else class_of_building[indices]
            merged = Footprints(to_pixels(on_ground, corners, image.pixel), confidences[indices], of_image)
            for writer in (geojson, geoparquet):
                writer.write(image.image_id, image.corner, merged, image.crs, image.pixel)
    return len(polygons)


def group_by_image(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each number of an image in `numbers` (n) with the indices at which it is."""
    order = np.argsort(numbers, kind="stable")
    images, starts = np.unique(numbers[order], return_index=True)
    yield from zip(images.tolist(), np.split(order, starts[1:]), strict=False)


def touches_edge(polygons: np.ndarray, image: Image) -> np.ndarray:
    """Return whether each polygon (n), in pixels of the image, touches the edge of the image (n)."""
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    return (bounds[:, :2] <= 0).any(axis=1) | (bounds[:, 2:] >= (image.width, image.height)).any(axis=1)
