"""Any georeferenced images, with buildings from vector files: a data set of a user's own."""

import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from hashlib import blake2b
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import Field, PositiveFloat, PositiveInt
from rasterio.warp import transform_bounds

from sn6.datasets.cache import Fingerprint, fingerprint, image_fingerprint
from sn6.datasets.declaration import WORLD, DataSet, Product, Split, Tile
from sn6.datasets.folder_checks import check_agreement, check_category, check_classes, check_names
from sn6.datasets.image_files import ImageHeader, find_files, read_headers
from sn6.datasets.placed_image import PlacedImage
from sn6.datasets.radar_units import MIN_DECIBELS, UnitName, Units, check_decibels
from sn6.datasets.tiling import cut_into_tiles
from sn6.datasets.vector_labels import Buildings, LabelColumns, count_categories, read_buildings
from sn6.errors import UserError
from sn6.files import visible
from sn6.footprints import Labels
from sn6.targets.rasterize import rasterize_instances

PRODUCT = "images"
DIRECTIONS = {"north": 0, "south": 1}
log = logging.getLogger(__name__)
STORED_DECIBELS = (MIN_DECIBELS, MIN_DECIBELS + 256)  # in steps of 1/256 dB


class Folder(DataSet):
    """Cut images of any size, placement and CRS into tiles, with the buildings of vector files on them.

    Images are one product. They agree in their bands and units; each is on a grid of square pixels in metres, its own
    or that of the UTM zone of its place, see `sn6.datasets.placed_image`. Tiles of an image are of about equal size.

    Args:
        images: see `sn6.datasets.image_files.find_files`
        labels: a vector file, or a folder with one of the same stem for each image; None where there are none
        where: SQL condition on the attributes of the labels
        height: attribute of the labels with the height in m
        category: attribute of the labels with the class; None for one class
        classes: values of `category` in the order of their numbers; buildings of other classes are left out
        area: polygon layer of the ground where the labels are complete; None where that is all of the images
        pixel_size: m; None for that of the images, which is then equal for all
        tile_size: pixels; largest edge length of a tile
        sensor: radar or optical
        band_names: names of the bands in their order; None for their descriptions, or band1, band2, ...
        units: of radar images
        scale: see `Units`
        offset: see `Units`
        nodata_value: pixels with this value in all bands have no data; None where only the files say what has none
        look_directions: CSV with the columns image (its stem) and direction (the side it was imaged from, north or
            south)
        cache: folder of the cache `.sn6`; None for the folder that contains all images

    Raises:
        UserError: there are no images, or they disagree; one of category and classes is missing
    """

    name = "folder"
    path_keys = ("images", "labels", "area", "look_directions", "cache")
    label_key = "data.labels"

    def __init__(
        self,
        *,
        images: str | list[str],
        labels: str | None = None,
        where: str | None = None,
        height: str | None = None,
        category: str | None = None,
        classes: list[str | int] | None = None,
        area: str | None = None,
        pixel_size: PositiveFloat | None = None,
        tile_size: PositiveInt = 1024,
        sensor: Literal["radar", "optical"] = "radar",
        band_names: list[str] | None = None,
        units: UnitName = "db",
        scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0,
        nodata_value: float | None = 0.0,
        look_directions: str | None = None,
        cache: str | None = None,
    ) -> None:
        given = locals()
        self.arguments = {name: given[name] for name in signature(type(self)).parameters}
        self.images, files = images, find_files(images, "data.images")
        self.root = Path(cache) if cache is not None else common_folder(files)
        self.headers = read_headers(self.root, files, pixel_size)
        check_agreement(self.headers)
        self.pixel_size = self.headers[0].grid.pixel_size
        names = tuple(band_names) if band_names is not None else names_of_bands(self.headers[0])
        check_names(names, self.headers[0])
        is_warped = any(header.warped for header in self.headers)  # interpolated values are no integers
        product = Product(
            PRODUCT,
            names,
            "float32" if is_warped else self.headers[0].dtype,
            self.pixel_size,
            sensor,
            nodata_value,
            units=Units(units, scale, offset) if sensor == "radar" else Units(),
            stored_range=STORED_DECIBELS,
        )
        self.products = {PRODUCT: product}
        self.crs = Counter(header.grid.crs for header in self.headers).most_common(1)[0][0]
        self.label_path, self.area_path = (None if path is None else Path(path) for path in (labels, area))
        check_category(category, classes)
        self.classes = tuple(str(name) for name in classes or ())
        self.columns = LabelColumns(where, height, category, classes=self.classes)
        self.look_directions = None if look_directions is None else Path(look_directions)
        self.places = cut_into_tiles(self.headers, tile_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen, (json.dumps(self.arguments),)

    @classmethod
    def channels(cls, data: Mapping[str, Any]) -> int:
        """Return the number of bands of the images."""
        arguments = {key: data[key] for key in signature(cls).parameters if key in data}
        return len(cls(**arguments).products[PRODUCT].bands)

    @cached_property
    def frame(self) -> str:
        """Return the CRS of the bounds of its tiles: their own, or one for the world where they are in several."""
        return self.crs if all(header.grid.crs == self.crs for header in self.headers) else WORLD

    def products_of(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the names of the products of each tile by image id."""
        return dict.fromkeys(self.places, (PRODUCT,)) if split == "train" else {}

    def tiles(self, split: Split, product: str) -> list[Tile]:
        """Return the tiles, sorted by image id."""
        if split != "train" or product != PRODUCT:
            raise UserError(
                f"{self.root} has no {product} tile in {split}", kind="not_found", key=self.root, value=product
            )
        if self.classes and self.label_path is not None:
            check_classes(self.classes, self.found_categories, self.label_path)
        tiles = [self.tile(split, image_id) for image_id in sorted(self.places)]
        if self.area_path is not None and not any(map(self.is_in_area, tiles)):
            raise UserError(
                f"{self.area_path} is beyond the images in {self.root}; give the area where their labels are complete",
                kind="wrong_data",
                key=self.area_path,
            )
        return tiles

    def tile(self, split: Split, image_id: str) -> Tile:
        """Return one tile."""
        if split != "train" or image_id not in self.places:
            raise UserError(
                f"{self.root} has no tile {image_id}; check the image id",
                kind="not_found",
                key=self.root,
                value=image_id,
            )
        header, rows, columns = self.places[image_id]
        placed = header.grid.bounds(rows, columns)
        crs = header.grid.crs
        bounds = placed if crs == self.frame else transform_bounds(crs, self.frame, *placed)
        direction = self.directions.get(Path(header.path).stem)
        return Tile(image_id, split, header.path, direction, bounds, (PRODUCT,), placed, crs)

    def image_path(self, tile: Tile, product: str) -> Path:
        """Return the file of an image."""
        return Path(self.places[tile.image_id][0].path)

    def read(
        self, tile: Tile, product: str, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read the pixels of a tile; arguments, result and errors of `DataSet.read`. Ground outside of the area of the
        labels is not valid.
        """
        header, rows, columns = self.places[tile.image_id]
        declared = self.products[product]
        image = PlacedImage(header.path, header.grid, header.bands, header.warped, declared.units, declared.nodata)
        pixels, valid = image.read(rows, columns, bands)
        if not declared.optical:
            check_decibels(pixels[:, valid], header.path, "data.units, data.scale or data.offset")
        if self.area_path is not None:
            valid &= self.area_on(tile, *valid.shape)
            pixels = np.where(valid, pixels, 0)
        return pixels, valid

    def fingerprint(self, tile: Tile, product: str) -> Fingerprint:
        """Return numbers that change when `read` gives other pixels; of addresses, the options alone count."""
        header, rows, columns = self.places[tile.image_id]
        declared = self.products[product]
        area = fingerprint(self.area_path) if self.area_path is not None else ()
        options = f"{header.grid} {rows} {columns} {declared.nodata} {declared.units} {area}"
        state: Fingerprint = ()
        with suppress(FileNotFoundError):
            state = image_fingerprint(Path(header.path))
        return *state, int.from_bytes(blake2b(options.encode(), digest_size=6).digest())

    def area_on(self, tile: Tile, height: int, width: int) -> Bool[np.ndarray, "{height} {width}"]:
        """Return which pixels of a tile are in the area where the labels are complete."""
        inside = self.area_in(tile.crs or self.crs).labels(tile.placed or tile.bounds, self.pixel_size)
        return rasterize_instances(inside.polygons, height, width) > 0

    def labels(self, tile: Tile) -> Labels | None:
        """Return the footprints of a tile in its own frame; None where they are unknown."""
        if not self.has_labels(tile):
            return None
        path = self.label_file(tile)
        assert path is not None
        return self.buildings_in(path, tile.crs or self.crs).labels(tile.placed or tile.bounds, self.pixel_size)

    def has_labels(self, tile: Tile) -> bool:
        """Return whether the footprints of a tile are known: those of a tile beyond the area are not."""
        return self.label_file(tile) is not None and (self.area_path is None or self.is_in_area(tile))

    def is_in_area(self, tile: Tile) -> bool:
        """Return whether a part of a tile is in the area where the labels are complete."""
        return len(self.area_in(tile.crs or self.crs).within(tile.placed or tile.bounds)) > 0

    def label_file(self, tile: Tile) -> Path | None:
        """Return the file with the labels of a tile: that of all, or that of its image."""
        if self.label_path is None or not self.label_path.is_dir():
            return self.label_path
        return self.files_by_stem.get(self.image_path(tile, PRODUCT).stem)

    @property
    def label_files(self) -> list[Path]:
        """Return the files with labels."""
        if self.label_path is None:
            return []
        return [*self.files_by_stem.values()] if self.label_path.is_dir() else [self.label_path]

    @cached_property
    def files_by_stem(self) -> dict[str, Path]:
        """Return the label file of each image by its stem."""
        assert self.label_path is not None
        stems = {Path(header.path).stem for header in self.headers}
        return {
            path.stem: path for path in visible(self.label_path) if path.stem in stems and path.suffix not in SIDECARS
        }

    @cached_property
    def _read(self) -> dict[tuple[Path, str], Buildings]:
        return {}

    def buildings_in(self, path: Path, crs: str) -> Buildings:
        """Return the buildings of a file in a CRS."""
        if (path, crs) not in self._read:
            is_of_one_image = path != self.label_path
            buildings = read_buildings(path, self.columns, may_be_empty=is_of_one_image)
            for note in buildings.notes:
                log.info("%s", note)
            self._read[path, crs] = buildings.to_crs(crs)
        return self._read[path, crs]

    @cached_property
    def found_categories(self) -> Counter[str]:
        """Return the number of features of each class in all label files."""
        return sum((count_categories(path, self.columns) for path in self.label_files), Counter())

    def area_in(self, crs: str) -> Buildings:
        """Return the polygons of the area of the labels in a CRS."""
        assert self.area_path is not None
        if (self.area_path, crs) not in self._read:
            self._read[self.area_path, crs] = read_buildings(self.area_path, LabelColumns()).to_crs(crs)
        return self._read[self.area_path, crs]

    @cached_property
    def directions(self) -> dict[str, int]:
        """Return the look direction of each image by its stem; empty where there is no table."""
        path = self.look_directions
        if path is None:
            return {}
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return {row["image"]: DIRECTIONS[row["direction"].strip().lower()] for row in csv.DictReader(file)}
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})", kind="unreadable", key=path) from None
        except (KeyError, AttributeError, csv.Error) as error:
            raise UserError(
                f"{path} needs the columns image and direction, with north or south ({error})",
                kind="wrong_data",
                key=path,
            ) from None

    def missing_orientation(self, tile: Tile) -> UserError:
        """Return the error of a tile whose image the table of look directions lacks."""
        stem = self.image_path(tile, PRODUCT).stem
        return UserError(
            f"data.look_directions has no image {stem}; add a line '{stem},north' or '{stem},south', or set "
            "data.orient=false",
            kind="missing_value",
            key="data.look_directions",
            value=stem,
        )

    def input_files(self, product: str) -> dict[str, list[Path]]:
        """Return the files besides the images that a run depends on."""
        files = {"labels of train": self.label_files, "area": [path for path in (self.area_path,) if path]}
        return files | {"look directions": [path for path in (self.look_directions,) if path]}

    @property
    def command_keys(self) -> dict[str, Any]:
        """Return the keys by which other commands find its images."""
        return {"images": self.images}

    @property
    def label_tables(self) -> tuple[Path, ...]:
        """Return that no table gives labels tile by tile."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was changed or left out in the labels, a line each."""
        for path in self.label_files:
            self.buildings_in(path, self.crs)
        return tuple(note for (path, _), read in self._read.items() if path != self.area_path for note in read.notes)


@lru_cache(maxsize=1)
def reopen(arguments: str) -> Folder:
    """Return the data set with these arguments, as JSON: one for all tiles that a process works on."""
    return Folder(**json.loads(arguments))


SIDECARS = (".cpg", ".dbf", ".prj", ".qix", ".sbn", ".sbx", ".shx", ".qml", ".xml")  # beside a Shapefile or layer


def common_folder(files: Sequence[str]) -> Path:
    """Return the folder that contains all files; the current one where they are addresses."""
    local = [file for file in files if os.path.exists(file)]
    links = set(filter(os.path.islink, local))
    folders = {os.path.dirname(os.path.realpath(file)) for file in links}
    folders |= {os.path.realpath(folder) for folder in {os.path.dirname(file) for file in local if file not in links}}
    return Path(os.path.commonpath(folders)) if local else Path()


def names_of_bands(header: ImageHeader) -> tuple[str, ...]:
    """Return the names of bands: their descriptions, or band1, band2, ... where one is missing or repeated."""
    if all(header.names) and len(set(header.names)) == len(header.names):
        return header.names
    return tuple(f"band{number}" for number in range(1, len(header.bands) + 1))
