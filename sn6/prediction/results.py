"""Write the files of a prediction from the partial results of its images."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path

import numpy as np
import shapely

from sn6.data.source import Source
from sn6.errors import UserError, counted
from sn6.files import write_csv
from sn6.footprints import Footprints
from sn6.footprints.ground import to_ground, to_pixels
from sn6.footprints.merging import join_halves, suppress_overlaps
from sn6.formats.files import writer_of
from sn6.formats.style import write_style
from sn6.formats.writer import WGS84, Attributes, FootprintWriter, GroundWriter, common_crs, to_crs
from sn6.prediction.images import Image
from sn6.prediction.map_grid import box_of
from sn6.prediction.partial_results import read_part
from sn6.prediction.pictures import draw_pictures
from sn6.prediction.plan import Plan
from sn6.prediction.rasters import write_looks_of_map
from sn6.prediction.regular_results import read_footprints, regularize_scaled


@dataclass(frozen=True)
class Products:
    """What a prediction writes.

    Attributes:
        formats: names of the formats of its footprints, see `sn6.formats.files.WRITERS`
        wgs84: whether a GeoJSON is in longitude and latitude, by RFC 7946, in place of the CRS of the images
        pictures: number of images to draw
        model: id of the networks, an attribute of each footprint; None leaves it out
    """

    formats: tuple[str, ...]
    wgs84: bool = False
    pictures: int = 0
    model: str | None = None

    @property
    def on_ground(self) -> tuple[str, ...]:
        """Return the formats for GIS, those of files on the ground."""
        return tuple(name for name in self.formats if writer_of(name).stem is None)


def check_products(products: Products, images: Sequence[Image], merge: bool) -> None:
    """Raise a UserError where merged footprints have no format, or `wgs84` no GeoJSON or an image without a CRS."""
    if merge and not products.on_ground:
        raise UserError(
            "merge=true writes footprints on the ground; add gpkg or another format for GIS to formats=",
            kind="conflict",
            key="merge",
        )
    if not products.wgs84:
        return
    if "geojson" not in products.formats:
        raise UserError(
            "wgs84=true is for GeoJSON; add geojson to formats=, or leave wgs84=true out", kind="conflict", key="wgs84"
        )
    if without := [image for image in images if image.crs is None]:
        raise UserError(
            f"{without[0].path} has no CRS, so its longitude and latitude are not known; leave wgs84=true out",
            kind="conflict",
            key="wgs84",
            value=without[0].path,
        )


def write_results(out: Path, plan: Plan, products: Products, source: Source) -> dict[str, int]:
    """Write all files of a prediction and return the number of images and footprints.

    Args:
        out: folder to write to
        plan: a plan whose steps are all done
        products: what to write
        source: product and bands of the images
    """
    counts = {"images": len(plan.images), "footprints": write_footprints(out, plan, products)}
    if plan.rounds:
        write_shifts(out, plan)
    if plan.merge:
        counts["merged"] = write_merged(out, plan, products)
        write_looks(out, plan)
    if products.pictures:
        draw_pictures(out / "pictures", plan, source, products.pictures)
    return counts


def write_footprints(out: Path, plan: Plan, products: Products) -> int:
    """Write `footprints.*` and the challenge's `proposals.csv`, and return the number of footprints."""
    chunks = (
        (number, chunk)
        for number, image in enumerate(plan.images)
        for chunk in read_footprints(plan.part(number), image.pixel_metres, plan.regularize)
    )
    return write_files(out, "footprints", plan, products, chunks)


def write_merged(out: Path, plan: Plan, products: Products) -> int:
    """Write `merged.*`, one footprint per building, and return their number."""
    chunks = merged_footprints(plan) if plan.fusion is None else mapped_footprints(plan)
    return write_files(out, "merged", plan, replace(products, formats=products.on_ground), chunks)


def write_files(out: Path, stem: str, plan: Plan, products: Products, chunks: Iterable[tuple[int, Footprints]]) -> int:
    """Write footprints in all formats, with a style beside those for GIS, and return their number.

    Args:
        out: folder to write to
        stem: name of the files on the ground
        plan: of the images
        products: what to write
        chunks: number of an image with footprints of it
    """
    count = 0
    with ExitStack() as stack:
        files = [stack.enter_context(open_writer(out, stem, plan, name, products)) for name in products.formats]
        for number, chunk in chunks:
            count += len(chunk)
            image = plan.images[number]
            for file in files:
                file.write(image.image_id, image.corner, chunk, image.crs, image.pixel)
    if products.on_ground:
        write_style(out / f"{stem}.qml")
    return count


def open_writer(out: Path, stem: str, plan: Plan, name: str, products: Products) -> FootprintWriter:
    """Return the writer of a format."""
    writer = writer_of(name)
    if not issubclass(writer, GroundWriter):
        return writer(out / f"{writer.stem}.{name}", plan.classes)
    crs, pixel = frame_of(plan)
    attributes = Attributes(
        heights=next(read_part(plan.part(0))).heights is not None,
        looks=plan.fusion is not None,
        times={image.image_id: image.time for image in plan.images if image.time is not None},
        model=products.model,
    )
    return writer(
        out / f"{stem}.{name}", WGS84 if products.wgs84 and name == "geojson" else crs, pixel, plan.classes, attributes
    )


def frame_of(plan: Plan) -> tuple[str | None, float]:
    """Return the CRS of files of footprints, and the pixel size of the first image."""
    return common_crs(image.crs for image in plan.images), plan.images[0].pixel


def merged_footprints(plan: Plan) -> Iterator[tuple[int, Footprints]]:
    """Yield the number of an image with its footprints, one per building of all images.

    Class and height of a building that tile edges cut are those of its most confident part.
    `sn6.footprints.merging` has the rules. The footprints of all images are in memory at the same time.
    """
    chunks = [(i, image, chunk) for i, image in enumerate(plan.images) for chunk in read_part(plan.part(i))]
    numbers = np.repeat([i for i, _, _ in chunks], [len(chunk) for _, _, chunk in chunks])
    cut = np.concatenate([touches_edge(chunk.polygons, image) for _, image, chunk in chunks])
    crs, _ = frame_of(plan)
    polygons = np.concatenate(
        [to_crs(to_ground(chunk.polygons, image.corner, image.pixel), image.crs, crs) for _, image, chunk in chunks]
    )
    confidences = np.concatenate([chunk.confidences for _, _, chunk in chunks])
    classes = [chunk.classes for _, _, chunk in chunks if chunk.classes is not None]  # of all chunks or of none
    heights = [chunk.heights for _, _, chunk in chunks if chunk.heights is not None]
    kept = suppress_overlaps(polygons, confidences, numbers, cut)
    polygons, confidences, best = join_halves(polygons[kept], confidences[kept], cut[kept])
    has_one_crs = crs == plan.images[0].crs  # otherwise degrees
    if plan.regularize and has_one_crs:
        polygons = regularize_scaled(polygons, plan.images[0].pixel_metres / plan.images[0].pixel)
    numbers = numbers[kept][best]
    buildings = Footprints(
        polygons,
        confidences,
        classes=np.concatenate(classes)[kept][best] if classes else None,
        heights=np.concatenate(heights)[kept][best] if heights else None,
    )
    for number, indices in group_by_image(numbers):
        of_image = buildings[indices]
        on_ground = to_crs(of_image.polygons, crs, plan.images[number].crs)
        footprints = in_pixels(replace(of_image, polygons=on_ground), plan.images[number])
        if plan.regularize and not has_one_crs:
            regular = regularize_scaled(footprints.polygons, plan.images[number].pixel_metres)
            footprints = replace(footprints, polygons=regular)
        yield number, footprints


def mapped_footprints(plan: Plan) -> Iterator[tuple[int, Footprints]]:
    """Yield the number of an image with its footprints, one per building of all looks.

    A footprint belongs to the image with the nearest centre of those that see a point inside it.
    """
    layout = plan.layout
    for number, grid in enumerate(layout.maps):
        on_map = layout.images_on(number)
        pixel_metres = plan.images[on_map[0]].pixel_metres
        for chunk in read_footprints(plan.map_part(number), pixel_metres, plan.regularize):
            on_ground = replace(chunk, polygons=to_ground(chunk.polygons, grid.corner, grid.pixel))
            owners = np.array(on_map)[nearest_image(on_ground.polygons, [plan.registered.image(i) for i in on_map])]
            for image, indices in group_by_image(owners):
                yield image, in_pixels(on_ground[indices], plan.images[image])
    for number in range(len(plan.images)):
        if layout.place(number) is None:
            pixel_metres = plan.images[number].pixel_metres
            chunks = read_footprints(plan.part(number), pixel_metres, plan.regularize)
            yield from ((number, chunk) for chunk in chunks)


def nearest_image(polygons: np.ndarray, images: Sequence[Image]) -> np.ndarray:
    """Return for each polygon (n) the index of the image whose centre is nearest, of those that see a point of it (n).

    Args:
        polygons: in the CRS of the images
        images: at least one has the point of each polygon
    """
    boxes = np.array([box_of(image) for image in images])
    points = shapely.point_on_surface(polygons)
    point, box = shapely.STRtree(boxes).query(points, predicate="intersects")
    distance = shapely.distance(points[point], shapely.centroid(boxes)[box])
    order = np.lexsort((box, distance, point))
    return box[order][np.searchsorted(point[order], np.arange(len(points)))]


def in_pixels(footprints: Footprints, image: Image) -> Footprints:
    """Return footprints on the ground in pixels of an image."""
    corners = np.tile(np.array(image.corner, dtype=np.float64), (len(footprints), 1))
    return replace(footprints, polygons=to_pixels(footprints.polygons, corners, image.pixel))


def write_shifts(out: Path, plan: Plan) -> None:
    """Write `shifts.csv`: where registration has moved each image, in m, and the correlation with the others there.

    The score is empty where the image has no reliable shift, and is not moved.
    """
    rows = zip(plan.images, plan.rounds[-1].read(), strict=True)
    write_csv(
        out / "shifts.csv",
        ("image_id", "east_m", "north_m", "score"),
        ((image.image_id, f"{east:.3f}", f"{north:.3f}", score) for image, (east, north, score) in rows),
    )


def registration_note(plan: Plan) -> str:
    """Return a line on the largest shift of a registration, and on the images that have none."""
    shifts = plan.rounds[-1].read()
    sizes = [hypot(east, north) for east, north, _ in shifts]
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    unknown = sum(score is None for _, _, score in shifts)
    return (
        f"register=true: the largest shift is {sizes[largest]:.2f} m, of {plan.images[largest].image_id}; "
        f"{unknown} of {counted(len(shifts), 'image')} without a reliable one"
    )


def write_looks(out: Path, plan: Plan) -> None:
    """Write the number of images at each pixel of a map, to `looks.tif`, or `looks0.tif`, ... of several maps."""
    for number, grid in enumerate(plan.layout.maps):
        name = "looks.tif" if len(plan.layout.maps) == 1 else f"looks{number}.tif"
        write_looks_of_map(out / name, plan.fused, number, grid)


def group_by_image(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each number of an image in `numbers` (n) with the indices at which it is."""
    order = np.argsort(numbers, kind="stable")
    images, starts = np.unique(numbers[order], return_index=True)
    yield from zip(images.tolist(), np.split(order, starts[1:]), strict=False)


def touches_edge(polygons: np.ndarray, image: Image) -> np.ndarray:
    """Return whether each polygon (n), in pixels of the image, touches the edge of the image (n)."""
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    return (bounds[:, :2] <= 0).any(axis=1) | (bounds[:, 2:] >= (image.width, image.height)).any(axis=1)
