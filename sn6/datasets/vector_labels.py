"""Buildings from vector files of any format and CRS, and those of a tile."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from jaxtyping import Float64, Int64, Shaped
from pyproj.exceptions import ProjError

from sn6.datasets.declaration import Bounds
from sn6.datasets.vector_file import read_frame, unreadable
from sn6.errors import UserError, counted, first_line
from sn6.footprints import Labels
from sn6.formats.nesting import unpack_collections
from sn6.formats.outlines import MAX_COORDINATE, is_finite

SURFACES = ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class LabelColumns:
    """Which features of a file are buildings, and which of their attributes are read.

    Attributes:
        where: SQL condition on the attributes, such as "type = 'house' AND height > 2"; None for all features
        height: attribute with the height in m; None for no heights
        category: attribute with the class; None for one class
        confidence: attribute with the confidence of proposals; None for none
        classes: values of `category` in the order of their numbers in the labels, from 1; buildings of others are left
            out
    """

    where: str | None = None
    height: str | None = None
    category: str | None = None
    confidence: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def attributes(self) -> list[str]:
        """Return the attributes that are read."""
        return [name for name in (self.height, self.category, self.confidence) if name is not None]


@dataclass(frozen=True, eq=False)
class Buildings:
    """Buildings in one CRS.

    Attributes:
        polygons: valid Polygons in the units of the CRS
        heights: m, NaN where unknown
        categories: value of the attribute of the class, as text; "" where there is none
        crs: as geopandas knows it
        notes: what was changed or left out while reading, a line each
        confidences: NaN where unknown
        classes: names of the classes in the order of their numbers in the labels; none for one class
    """

    polygons: Shaped[np.ndarray, "n"]
    heights: Float64[np.ndarray, "n"]
    categories: Shaped[np.ndarray, "n"]
    crs: Any
    notes: tuple[str, ...]
    confidences: Float64[np.ndarray, "n"]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.polygons)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)

    def to_crs(self, crs: str) -> "Buildings":
        """Return the same buildings in another CRS, "EPSG:<code>"; vertices move, edges stay straight.

        Raises:
            UserError: PROJ does not know how, or one of them has no place there
        """
        try:
            moved = geopandas.GeoSeries(self.polygons, crs=self.crs).to_crs(crs).to_numpy()
            reason = "" if is_finite(moved).all() else "coordinates that are beyond it"
        except ProjError as error:
            reason = first_line(error)
        if reason:
            name = next(iter(str(self.crs).splitlines()), "")
            raise UserError(
                f"polygons in the CRS {name} cannot be moved to {crs} ({reason}); write their file in {crs}",
                kind="wrong_data",
                value=name,
            )
        return replace(self, polygons=make_polygons_valid(moved)[0], crs=crs)

    @cached_property
    def _class_numbers(self) -> Int64[np.ndarray, "n"]:
        number = {name: i for i, name in enumerate(self.classes, start=1)}
        return np.array([number[category] for category in self.categories], dtype=np.int64)

    def within(self, bounds: Bounds) -> Shaped[np.ndarray, "_"]:
        """Return the indices of the buildings that share ground with a rectangle, in their order."""
        return np.sort(self._tree.query(shapely.box(*bounds), predicate="intersects"))

    def labels(self, bounds: Bounds, pixel_size: float) -> Labels:
        """Return the parts of the buildings on a tile, in its pixels.

        A building that the edge of the tile cuts in several parts has as many labels: its tile shows no more.

        Args:
            bounds: west, south, east, north of the tile in the CRS of the buildings
            pixel_size: of the tile in units of the CRS
        """
        near = self.within(bounds)
        cut = shapely.intersection(self.polygons[near], shapely.box(*bounds))
        parts, building = shapely.get_parts(cut, return_index=True)
        kept = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
        west, _, _, north = bounds
        pixels = shapely.transform(parts[kept], lambda xy: (xy - (west, north)) / (pixel_size, -pixel_size))
        rows = near[building[kept]]
        return Labels(pixels, self.heights[rows], self._class_numbers[rows] if self.classes else None)


def read_buildings(path: Path, columns: LabelColumns, may_be_empty: bool = False) -> Buildings:
    """Read the buildings of a vector file.

    Features without a geometry and those of other classes are left out, invalid polygons are repaired, and each part of
    a MultiPolygon is a building; `notes` count them.

    Args:
        path: of any format that pyogrio reads, or GeoParquet; of a file with several layers the first
        columns: which features and attributes are read
        may_be_empty: whether it may have no building, as that of a single image

    Raises:
        UserError: it cannot be read, has no CRS, no building, geometries that are no polygons, no such attribute, or a
            height or confidence that is not a number
    """
    frame = read_frame(path, columns.attributes, columns.where)
    if frame.crs is None:
        raise UserError(
            f"{path} has no CRS; write it with one, for example with ogr2ogr -a_srs EPSG:...",
            kind="wrong_data",
            key=path,
        )
    try:
        geometries, left_out = unpack_collections(np.asarray(frame.geometry, dtype=object))
    except NotImplementedError as error:  # curves in a collection
        raise unreadable(path, error, "write it with straight lines") from None
    is_missing = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    kinds = Counter(geometry.geom_type for geometry in geometries[~is_missing])
    if others := {kind: number for kind, number in kinds.items() if kind not in SURFACES}:
        listed = ", ".join(f"{number} {kind}" for kind, number in others.items())
        raise UserError(
            f"{path} has geometries that are no polygons ({listed}); give the outlines of buildings",
            kind="wrong_data",
            key=path,
            value=sorted(others),
        )
    if not kinds and not may_be_empty:
        condition = f" where {columns.where}" if columns.where else ""
        raise UserError(
            f"{path} has no building{condition}; give another file or condition", kind="wrong_data", key=path
        )
    if not (finite := is_finite(geometries)).all():
        number = counted(int((~finite).sum()), "feature")
        raise UserError(
            f"{path} has {number} with a coordinate that is NaN, infinite or beyond {MAX_COORDINATE:g}; remove or "
            "correct them",
            kind="wrong_data",
            key=path,
        )
    valid, repaired = make_polygons_valid(shapely.force_2d(geometries[~is_missing]))
    parts, feature = shapely.get_parts(valid, return_index=True)
    rows = np.flatnonzero(~is_missing)[feature]
    categories = categories_of(frame, columns.category)[rows]
    is_listed = np.isin(categories, columns.classes) if columns.classes else np.ones(len(parts), dtype=bool)
    notes = (
        (int(is_missing.sum()), "feature", "without a geometry: left out"),
        (left_out, "part", "of GeometryCollections that are no polygons: left out"),
        (repaired, "invalid polygon", "repaired"),
        (len(parts) - len(valid), "part", "after the first of a MultiPolygon: a building each"),
        (int((~is_listed).sum()), "building", "of a class that data.classes does not list: left out"),
    )
    return Buildings(
        parts[is_listed],
        numbers_of(frame, columns.height, path, "heights in m")[rows][is_listed],
        categories[is_listed],
        frame.crs,
        tuple(f"{path}: {counted(number, noun)} {what}" for number, noun, what in notes if number),
        numbers_of(frame, columns.confidence, path, "confidences")[rows][is_listed],
        columns.classes,
    )


def numbers_of(frame: geopandas.GeoDataFrame, column: str | None, path: Path, what: str) -> Float64[np.ndarray, "n"]:
    """Return an attribute of features as numbers, NaN where it is missing; raise a UserError for text.

    Args:
        frame: features
        column: the attribute; None for NaN everywhere
        path: of the file
        what: the attribute means, in plural
    """
    if column is None:
        return np.full(len(frame), np.nan)
    try:
        return np.asarray(frame[column], dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(
            f"{path}: the attribute {column!r} has values that are no numbers; give the one with {what}",
            kind="wrong_data",
            key=path,
            value=column,
        ) from None


def categories_of(frame: geopandas.GeoDataFrame, column: str | None) -> Shaped[np.ndarray, "n"]:
    """Return the classes of features as text, "" where there is none; whole numbers without decimals."""
    if column is None:
        return np.full(len(frame), "", dtype=object)
    return np.array([category_text(value) for value in frame[column].tolist()], dtype=object)


def category_text(value: Any) -> str:
    """Return the value of an attribute as text: a column of whole numbers with gaps is read as one of floats."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def count_categories(path: Path, columns: LabelColumns) -> Counter[str]:
    """Return the number of features of each class in a vector file; errors of `read_buildings`."""
    return Counter(categories_of(read_frame(path, columns.attributes, columns.where), columns.category).tolist())


def make_polygons_valid(polygons: Sequence[Any] | Shaped[np.ndarray, "n"]) -> tuple[Shaped[np.ndarray, "n"], int]:
    """Return polygons with the invalid ones repaired, and how many were invalid; what is no surface is dropped."""
    shapes = np.asarray(polygons, dtype=object).copy()
    invalid = ~shapely.is_valid(shapes)
    for index in np.flatnonzero(invalid):
        parts = shapely.get_parts(shapely.make_valid(shapes[index]))
        shapes[index] = shapely.union_all([part for part in parts if part.geom_type in SURFACES])
    return shapes, int(invalid.sum())
