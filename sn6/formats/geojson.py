"""Read and write footprints as GeoJSON: one collection for all tiles, or labels with one file per tile.

In metres it is GeoJSON 2008 with a member `crs`, which QGIS reads; in longitude and latitude it is RFC 7946: no member
`crs`, exterior rings counterclockwise and interior ones clockwise.

The properties of a feature are the attributes of `sn6.formats.writer.COLUMN_TYPES` that footprints have. Two members of
the collection make it possible to score the file: `tiles` maps the image id of every evaluated tile to its west and
north edge in metres, `pixel_size` is the size of a pixel in the units of the CRS.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Shaped

from sn6.errors import UserError, counted
from sn6.footprints import Labels
from sn6.footprints.ground import Corner, TileGrid
from sn6.formats.ground_table import GroundTable
from sn6.formats.outlines import Outlines, parts, read_error
from sn6.formats.writer import WGS84, GroundWriter

log = logging.getLogger(__name__)


class GeoJSONWriter(GroundWriter):
    """Write a GeoJSON FeatureCollection; memory contains the footprints of one tile and the names of the others."""

    def _begin(self, stack: ExitStack) -> None:
        self._file = stack.enter_context(self._part.open("wb"))
        members = ['"type": "FeatureCollection"']
        if self.crs not in (None, WGS84):  # which GeoJSON has without a name
            name = f"urn:ogc:def:crs:{self.crs.replace(':', '::')}"
            members.append(f'"crs": {json.dumps({"type": "name", "properties": {"name": name}})}')
        self._file.write(f'{{{", ".join(members)}, "features": ['.encode())
        self._separator = "\n"

    def _add(self, polygons: Shaped[np.ndarray, "n"], columns: dict[str, list[Any]]) -> None:
        if self.crs == WGS84:
            polygons = shapely.orient_polygons(polygons)
        for geometry, *values in zip(shapely.to_geojson(polygons), *columns.values(), strict=True):
            properties = json.dumps(dict(zip(columns, values, strict=True)))
            feature = f'{{"type": "Feature", "properties": {properties}, "geometry": {geometry}}}'
            self._file.write((self._separator + feature).encode())
            self._separator = ",\n"

    def _end(self) -> None:
        members = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in self.evaluated_tiles().items())
        self._file.write(f"\n]{members}}}\n".encode())


def read_outlines(path: Path, value: str | None = None, grid: TileGrid | None = None) -> Outlines:
    """Read the footprints of a collection whose features name their tile in the property `image_id`.

    Args:
        path: file to read
        value: property of the values; None where there are none, which makes them NaN
        grid: of the tiles, for a file without the members `tiles` and `pixel_size`; also its CRS if it names none

    Raises:
        UserError: a file that cannot be read, a property that is missing, a feature without a valid polygon, a tile
            whose corner is unknown, another CRS than that of the grid
    """
    collection = _read_collection(path)
    properties = [feature.get("properties") or {} for feature in collection["features"]]
    for number, named in enumerate(properties, start=1):
        if value and value not in named:
            raise UserError(
                f"{path}, footprint {number}: the property {value} is missing; add it",
                kind="wrong_data",
                key=path,
                value=value,
            )
    table = GroundTable(
        path,
        [named.get("image_id") for named in properties],
        _geometries(collection),
        [named[value] for named in properties] if value else None,
        _crs_of(path, collection, grid.crs if grid else "unknown"),
        {key: collection[key] for key in ("tiles", "pixel_size") if key in collection},
    )
    return table.outlines(shapely.from_geojson, grid)


def names_tiles(path: Path) -> bool:
    """Return whether a collection lists its tiles, or a feature names its own; raise a UserError for a broken file."""
    collection = _read_collection(path)
    return "tiles" in collection or any("image_id" in (one.get("properties") or {}) for one in collection["features"])


def read_geojson_labels(path: Path, corner: Corner, crs: str, pixel_size: float) -> Labels:
    """Read the buildings of one tile from its label file, whose features need no properties; heights are unknown.

    An empty file is a tile without buildings. Features without a geometry are skipped, each part of a MultiPolygon is
    a building.

    Args:
        path: label file of the tile
        corner: of the tile
        crs: of the corner, as "EPSG:<code>"; also that of a file without the member `crs`
        pixel_size: of the tile in m

    Raises:
        UserError: a file that cannot be read, another CRS, a geometry that is not a valid polygon
    """
    collection = _read_collection(path)
    geometries = _geometries(collection)
    tile = path.stem  # names the tile in messages
    table = GroundTable(path, [tile] * len(geometries), geometries, None, _crs_of(path, collection, crs), {})
    _, _, polygons, heights, left_out = table.footprints(
        shapely.from_geojson, TileGrid({tile: corner}, crs, pixel_size)
    )
    if left_out:
        log.warning("%s: %s of GeometryCollections that are no polygons: left out", path, counted(left_out, "part"))
    return Labels(*parts((polygons, heights)))


def _read_collection(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        collection = json.loads(text) if text.strip() else {"features": []}
        members = [
            one for feature in collection["features"] for one in (feature["geometry"], feature.get("properties"))
        ]
        if not all(isinstance(member, dict | None) for member in members):
            raise TypeError
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: invalid JSON ({error.msg}); download or write the file again",
            kind="unreadable",
            key=path,
        ) from None
    except RecursionError:
        message = f"{path} has too many lists or objects in one another; write the file again"
        raise UserError(message, kind="unreadable", key=path) from None
    except (OSError, ValueError) as error:  # such as a number of thousands of digits
        raise read_error(path, error) from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(
            f"{path} is not a GeoJSON FeatureCollection; convert it to one", kind="wrong_data", key=path
        ) from None
    return collection


def _geometries(collection: Mapping[str, Any]) -> list[str | None]:
    """Return the JSON of each feature's geometry."""
    geometries = [feature["geometry"] for feature in collection["features"]]
    return [None if geometry is None else json.dumps(geometry) for geometry in geometries]


def _crs_of(path: Path, collection: Mapping[str, Any], default: str) -> str:
    """Return the CRS as "EPSG:<code>" or its name; `default` where the collection has none.

    Raises:
        UserError: the member `crs` has no name, as a link to a description has none
    """
    try:
        name = default if collection.get("crs") is None else collection["crs"]["properties"]["name"]
    except (KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise UserError(
            f"{path}: the member crs has no name of a CRS; write the file again, for example with ogr2ogr",
            kind="wrong_data",
            key=path,
            value="crs",
        )
    return f"EPSG:{name.rpartition(':')[2]}" if "EPSG:" in name else name
