"""Restrict images to a polygon layer of the ground to predict."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from sn6.datasets.vector_file import read_frame
from sn6.datasets.vector_labels import SURFACES, make_polygons_valid
from sn6.errors import UserError
from sn6.formats.writer import to_crs
from sn6.prediction.images import Image


def restrict(images: Sequence[Image], layer: Path) -> list[Image]:
    """Return the images that touch the polygons of a layer, with the ground that they share.

    Args:
        images: to predict
        layer: of any format and CRS that pyogrio reads

    Raises:
        UserError: the layer cannot be read, has no CRS or no polygons, or misses all images, or an image has no CRS
    """
    polygons, crs = read_polygons(layer)
    by_crs: dict[str, shapely.Geometry] = {}
    touched = []
    for image in images:
        if image.crs is None:
            raise UserError(
                f"aoi={layer} needs images with a CRS, and {image.path} has none; write it into the file, for example "
                "with gdal_edit",
                kind="conflict",
                key="aoi",
                value=str(layer),
            )
        if image.crs not in by_crs:
            by_crs[image.crs] = shapely.union_all(make_polygons_valid(to_crs(polygons, crs, image.crs))[0])
        (west, north), pixel = image.corner, image.pixel
        extent = shapely.box(west, north - image.height * pixel, west + image.width * pixel, north)
        shared = shapely.intersection(by_crs[image.crs], extent)
        if shapely.area(shared) > 0:
            touched.append(replace(image, area=shapely.to_wkb(shared)))
    if not touched:
        raise UserError(
            f"aoi={layer} touches none of the images, such as {images[0].path}; give polygons of their ground",
            kind="wrong_data",
            key="aoi",
            value=str(layer),
        )
    return touched


def read_polygons(layer: Path) -> tuple[np.ndarray, str]:
    """Return the polygons (n) of a layer, and their CRS; errors of `restrict`."""
    frame = read_frame(layer, (), None)
    if frame.crs is None:
        raise UserError(
            f"aoi={layer} has no CRS; write it with one, for example with ogr2ogr -a_srs EPSG:...",
            kind="wrong_data",
            key="aoi",
            value=str(layer),
        )
    geometries = np.asarray(frame.geometry, dtype=object)
    polygons = geometries[~(shapely.is_missing(geometries) | shapely.is_empty(geometries))]
    kinds = {geometry.geom_type for geometry in polygons}
    if not kinds or not kinds <= set(SURFACES):
        raise UserError(
            f"aoi={layer} has {', '.join(sorted(kinds - set(SURFACES))) or 'no geometry'}; give polygons",
            kind="wrong_data",
            key="aoi",
            value=str(layer),
        )
    return make_polygons_valid(shapely.force_2d(polygons))[0], frame.crs.to_string()
