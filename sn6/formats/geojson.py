"""Footprints as GeoJSON in metres: one collection for all tiles, and the archive's own labels, one file a tile.

A feature that is written here has the properties `image_id`, `confidence` and `area_m2`. The collection's own members
`tiles` and `pixel` say which tiles were looked at, each with its corner, so that the file can be scored.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import shapely

from sn6.datasets.layout import CRS
from sn6.errors import UserError
from sn6.footprints import Footprints, Labels
from sn6.footprints.ground import Corner, to_ground
from sn6.formats.ground_table import GroundTable
from sn6.formats.outlines import Outlines, parts
from sn6.formats.writer import FootprintWriter


class GeoJSONWriter(FootprintWriter):
    """Memory holds one tile and the names of the others."""

    def _begin(self, stack: ExitStack) -> None:
        members = ['"type": "FeatureCollection"']
        if self.crs is not None:
            name = f"urn:ogc:def:crs:{self.crs.replace(':', '::')}"
            members.append(f'"crs": {json.dumps({"type": "name", "properties": {"name": name}})}')
        self._file.write(f'{{{", ".join(members)}, "features": ['.encode())
        self._separator = "\n"

    def _add(self, image_id: str, corner: Corner, footprints: Footprints) -> None:
        geometries = shapely.to_geojson(to_ground(footprints.polygons, corner, self.pixel))
        areas = shapely.area(footprints.polygons) * self.pixel**2
        rows = zip(geometries, footprints.confidences.tolist(), areas.tolist(), strict=True)
        for geometry, confidence, area in rows:
            properties = json.dumps({"image_id": image_id, "confidence": confidence, "area_m2": area})
            feature = f'{{"type": "Feature", "properties": {properties}, "geometry": {geometry}}}'
            self._file.write((self._separator + feature).encode())
            self._separator = ",\n"

    def _end(self) -> None:
        self._file.write(f"\n], {json.dumps(self.looked_at())[1:-1]}}}\n".encode())


def read_geojson(path: Path, corners: Mapping[str, Corner], value: str | None) -> Outlines:
    """The footprints of a collection whose features name their tile by the property `image_id`.

    Args:
        path: the file
        corners: of tiles, for a file of another program, which does not tell them
        value: the property of the values; None where there are none, which are NaN then

    Raises:
        UserError: a file that cannot be read, a property that is missing, a feature without a sound polygon, a tile
            whose corner is not known, another CRS where the file does not tell the corners
    """
    collection = _read_collection(path)
    properties = [feature.get("properties") or {} for feature in collection["features"]]
    if value and any(value not in found for found in properties):
        first = next(i for i, found in enumerate(properties) if value not in found)
        raise UserError(f"{path}, footprint {first + 1}: there is no property {value}; add it")
    table = GroundTable(
        path,
        [found.get("image_id") for found in properties],
        _geometries(collection),
        [found[value] for found in properties] if value else None,
        _crs_of(collection),
        {key: collection[key] for key in ("tiles", "pixel") if key in collection},
    )
    return table.outlines(shapely.from_geojson, corners)


def read_geojson_labels(path: Path, corner: Corner) -> Labels:
    """The buildings of one tile from the archive's GeoJSON in EPSG:32631, heights not known.

    An empty file is a tile without buildings. Features without a geometry are skipped, each part of a
    multipolygon is a building.

    Args:
        path: the tile's own file
        corner: of the tile

    Raises:
        UserError: a file that cannot be read, another CRS, a geometry that is no sound polygon
    """
    collection = _read_collection(path)
    geometries = _geometries(collection)
    rows = len(geometries)
    tile = path.stem  # the name of the file stands in messages for that of the tile
    table = GroundTable(path, [tile] * rows, geometries, None, _crs_of(collection), {})
    _, _, polygons, heights = table.footprints(shapely.from_geojson, {tile: corner})
    return Labels(*parts((polygons, heights)))


def _read_collection(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        collection = json.loads(text) if text.strip() else {"features": []}
        if not all(isinstance(feature["geometry"], dict | None) for feature in collection["features"]):
            raise TypeError
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: no JSON ({error.msg}); fetch the file again") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({reason}); check the path and the file") from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is no GeoJSON FeatureCollection; convert it to one") from None
    return collection


def _geometries(collection: Mapping[str, Any]) -> list[str | None]:
    """The text of each feature's geometry."""
    found = [feature["geometry"] for feature in collection["features"]]
    return [None if geometry is None else json.dumps(geometry) for geometry in found]


def _crs_of(collection: Mapping[str, Any]) -> str:
    """The CRS as "EPSG:<code>"; without the member it is the archive's, whose labels have it."""
    name = str((collection.get("crs") or {}).get("properties", {}).get("name", CRS))
    return f"EPSG:{name.rpartition(':')[2]}" if "EPSG:" in name else name
