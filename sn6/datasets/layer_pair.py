"""Two vector layers, the ground truth and proposals, on the same ground in one CRS of metres."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Int64, Shaped
from rasterio.crs import CRS

from sn6.datasets.georeference import TOLERANCE, Place, metres_per_unit, place_of, utm_zone
from sn6.datasets.vector_file import attributes
from sn6.datasets.vector_labels import Buildings, LabelColumns, read_buildings
from sn6.errors import UserError, counted
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import DIGITS, Corner
from sn6.metrics.matching import MIN_IOU, duplicates

CONFIDENCE = "confidence"  # attribute that sn6 writes


@dataclass(frozen=True, eq=False)
class LayerPair:
    """The polygons of two layers.

    Attributes:
        truth: buildings in m from the origin
        proposed: proposals in m from the origin, with confidences that are NaN where there are none
        origin: easting and northing of the coordinates (0, 0)
        ground: what is scored, as JSON values: `area` (the file, or None for all of both layers), `crs`, and `bounds`
            (west, south, east, north) and `km2` of the area, or of the bounding boxes of both layers
        notes: what was changed or left out, a line each
    """

    truth: Labels
    proposed: Footprints
    origin: Corner
    ground: dict[str, Any]
    notes: tuple[str, ...]


def read_layers(
    truth: Path, proposals: Path, area: Path | None, columns: LabelColumns, confidence: str | None
) -> LayerPair:
    """Read two layers, and cut both to an area.

    Args:
        truth: file of the ground truth
        proposals: file of the proposals
        area: polygon layer; None for all of both layers
        columns: of the ground truth
        confidence: attribute of the proposals; None for CONFIDENCE where they have it

    Raises:
        UserError: errors of `read_buildings`, coordinates that are not of their CRS, a missing confidence, layers on
            different ground, an area without a building of the ground truth
    """
    true = read_buildings(truth, columns)
    of_proposals = LabelColumns(confidence=confidence or own_confidence(proposals))
    proposed = read_buildings(proposals, of_proposals, may_be_empty=True)
    check_confidences(proposed, proposals)
    crs = metric_crs(true, truth)
    ground = None
    if area is not None:
        ground = shapely.union_all(on_ground(read_buildings(area, LabelColumns()), area, crs, None)[0])
    buildings, building = on_ground(true, truth, crs, ground)
    footprints, footprint = on_ground(proposed, proposals, crs, ground)
    if area is not None and not len(buildings):
        raise UserError(f"{area} has no building of {truth} in it; give another area", kind="wrong_data", key=area)
    notes = [*true.notes, *proposed.notes, *duplicate_notes(truth, buildings), *duplicate_notes(proposals, footprints)]
    if ground is None:
        check_same_ground(truth, buildings, proposals, footprints)
        ground = shapely.union_all([bounding_box(buildings), bounding_box(footprints)])
        notes += outside_notes(proposals, buildings, footprints)
    west, south, east, north = shapely.bounds(ground).tolist()
    origin = (float(np.floor(west)), float(np.floor(south)))
    return LayerPair(
        Labels(shifted(buildings, origin), true.heights[building]),
        Footprints(shifted(footprints, origin), proposed.confidences[footprint]),
        origin,
        {
            "area": None if area is None else str(area),
            "crs": name_of(crs),
            "bounds": [west, south, east, north],
            "km2": float(shapely.area(ground)) / 1e6,
        },
        tuple(notes),
    )


def own_confidence(path: Path) -> str | None:
    """Return CONFIDENCE where a file has this attribute; None else, or for a broken file, which its reader reports."""
    try:
        return CONFIDENCE if CONFIDENCE in attributes(path) else None
    except UserError:
        return None


def check_confidences(proposed: Buildings, path: Path) -> None:
    """Raise a UserError where some of the proposals have a confidence and others have none."""
    missing = np.isnan(proposed.confidences)
    if missing.any() and not missing.all():
        raise UserError(
            f"{path}: {counted(int(missing.sum()), 'proposal')} of {len(missing)} without a confidence; give each one, "
            "or none",
            kind="wrong_data",
            key=path,
        )


def metric_crs(buildings: Buildings, path: Path) -> str:
    """Return the CRS of a layer as WKT, or that of the UTM zone of its centre where its units are no metres there."""
    crs = CRS.from_user_input(buildings.crs)
    x, y = centre_of(buildings)
    place = place_in(crs, x, y, path)
    is_metric = all(abs(metres - 1) <= TOLERANCE for metres in metres_per_unit(crs, x, y))
    return (crs if is_metric and not crs.is_geographic else utm_zone(place)).to_wkt()


def centre_of(buildings: Buildings) -> tuple[float, float]:
    """Return the centre of the bounding box of a layer in its own CRS."""
    west, south, east, north = shapely.total_bounds(buildings.polygons).tolist()
    return (west + east) / 2, (south + north) / 2


def place_in(crs: CRS, x: float, y: float, path: Path) -> Place:
    """Return longitude and latitude of a point; raise a UserError where it is outside of the range of its CRS."""
    place = place_of(crs, x, y)
    if place is None:
        raise UserError(
            f"{path}: its coordinates, around {x:.6g}, {y:.6g}, are outside of the range of its CRS, "
            f"{name_of(crs.to_wkt())}; write it with its own CRS",
            kind="wrong_data",
            key=path,
            value=name_of(crs.to_wkt()),
        )
    return place


def name_of(crs: str) -> str:
    """Return the code of a CRS in WKT such as "EPSG:25833", or its PROJ string where it has none."""
    code = CRS.from_wkt(crs).to_epsg()
    return CRS.from_wkt(crs).to_proj4() if code is None else f"EPSG:{code}"


def on_ground(
    buildings: Buildings, path: Path, crs: str, area: shapely.Geometry | None
) -> tuple[Shaped[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Return the polygons of a layer in a CRS, cut to an area, and the index of the building of each.

    As at the edge of a tile, a building that the edge of the area cuts into several parts is as many polygons.

    Args:
        buildings: of the layer
        path: of its file
        crs: WKT
        area: in this CRS; None for everywhere
    """
    if not len(buildings):
        return buildings.polygons, np.zeros(0, dtype=np.int64)
    own = CRS.from_user_input(buildings.crs)
    place_in(own, *centre_of(buildings), path)
    polygons = (buildings if own == CRS.from_wkt(crs) else buildings.to_crs(crs)).polygons.copy()
    if area is not None:
        shapely.prepare(area)
        crossing = ~shapely.contains_properly(area, polygons)
        polygons[crossing] = shapely.intersection(polygons[crossing], area)
    parts, building = shapely.get_parts(polygons, return_index=True)
    kept = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    return parts[kept], building[kept]


def shifted(polygons: Shaped[np.ndarray, "n"], origin: Corner) -> Shaped[np.ndarray, "n"]:
    """Return polygons in m from the origin, rounded as `to_pixels` does, so that an area of exactly 20 m² stays one."""
    return shapely.transform(polygons, lambda xy: np.round(xy - origin, DIGITS))


def duplicate_notes(path: Path, polygons: Shaped[np.ndarray, "n"]) -> tuple[str, ...]:
    """Return a line on polygons that are in a layer twice, as are those of overlapping tiles."""
    number = int(duplicates(polygons).sum())
    if not number:
        return ()
    return (f"{path}: {counted(number, 'polygon')} with an IoU above {MIN_IOU:g} with an earlier one: each counts",)


def bounding_box(polygons: Shaped[np.ndarray, "n"]) -> shapely.Geometry:
    """Return the bounding box of polygons, empty where there are none."""
    return shapely.box(*shapely.total_bounds(polygons)) if len(polygons) else shapely.Polygon()


def check_same_ground(
    truth: Path, buildings: Shaped[np.ndarray, "n"], proposals: Path, footprints: Shaped[np.ndarray, "m"]
) -> None:
    """Raise a UserError where the bounding boxes of two layers with polygons share no ground."""
    if len(footprints) and not shapely.intersects(bounding_box(buildings), bounding_box(footprints)):
        raise UserError(
            f"{proposals} is on other ground than {truth}; give layers of the same ground, or correct their CRS",
            kind="wrong_data",
            key=proposals,
        )


def outside_notes(
    path: Path, buildings: Shaped[np.ndarray, "n"], footprints: Shaped[np.ndarray, "m"]
) -> tuple[str, ...]:
    """Return a line on the proposals that are outside of the bounding box of the ground truth."""
    outside = int((~shapely.intersects(bounding_box(buildings), footprints)).sum())
    if not outside:
        return ()
    number = f"{outside} of {counted(len(footprints), 'proposal')}"
    return (f"{path}: {number} outside of the bounding box of the ground truth, false positives; see area=",)
