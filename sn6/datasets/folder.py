"""Any georeferenced images, with buildings from vector files: a data set of a user's own."""

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import Field, PositiveFloat, PositiveInt
from rasterio.warp import transform_bounds

from sn6.datasets.declaration import WORLD, DataSet, Product, Split, Tile
from sn6.datasets.image_files import ImageHeader, find_files, read_headers
from sn6.datasets.placed_image import PlacedImage
from sn6.datasets.radar_units import UnitName, Units
from sn6.datasets.vector_labels import Buildings, LabelColumns, read_buildings
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.targets.rasterize import rasterize_instances

PRODUCT = "images"
DIRECTIONS = {"north": 0, "south": 1}


class Folder(DataSet):
    """Cut images of any size, placement and CRS into tiles, with the buildings of vector files on them.

    Images are one product. They agree in their bands and units; each is on a grid of square pixels in metres, its own
    or that of the UTM zone of its place, see `sn6.datasets.placed_image`. Tiles of an image are of about equal size.

    Args:
        images: see `sn6.datasets.image_files.find_files`
        labels: a vector file, or a folder with one of the same stem for each image; None where there are none
        where: SQL condition on the attributes of the labels
        height: attribute of the labels with the height in m
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
        UserError: there are no images, or they disagree
    """

    name = "folder"
    splits = ("train",)

    def __init__(
        self,
        *,
        images: str | list[str],
        labels: str | None = None,
        where: str | None = None,
        height: str | None = None,
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
        self.images, files = images, find_files(images, "data.images")
        self.root = Path(cache) if cache is not None else common_folder(files)
        self.headers = read_headers(self.root, files, pixel_size)
        check_agreement(self.headers)
        self.pixel_size = self.headers[0].grid.pixel_size
        names = tuple(band_names) if band_names is not None else names_of_bands(self.headers[0])
        check_names(names, self.headers[0])
        values = Units(units, scale, offset) if sensor == "radar" else Units()
        product = Product(PRODUCT, names, self.headers[0].dtype, self.pixel_size, sensor, nodata_value, units=values)
        self.products = {PRODUCT: product}
        self.crs = Counter(header.grid.crs for header in self.headers).most_common(1)[0][0]
        self.label_path, self.area_path = (None if path is None else Path(path) for path in (labels, area))
        self.columns = LabelColumns(where, height)
        self.look_directions = None if look_directions is None else Path(look_directions)
        self.places = cut_into_tiles(self.headers, tile_size)

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
        return [self.tile(split, image_id) for image_id in sorted(self.places)]

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
        if self.area_path is not None:
            valid &= self.area_on(tile, *valid.shape)
            pixels = np.where(valid, pixels, 0)
        return pixels, valid

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
        """Return whether the footprints of a tile are known."""
        return self.label_file(tile) is not None

    def label_file(self, tile: Tile) -> Path | None:
        """Return the file with the labels of a tile: that of all, or that of its image."""
        if self.label_path is None or not self.label_path.is_dir():
            return self.label_path
        return self.files_by_stem.get(self.image_path(tile, PRODUCT).stem)

    @cached_property
    def files_by_stem(self) -> dict[str, Path]:
        """Return the label file of each image by its stem."""
        assert self.label_path is not None
        visible = sorted(path for path in self.label_path.iterdir() if not path.name.startswith("."))
        stems = {Path(header.path).stem for header in self.headers}
        return {path.stem: path for path in visible if path.stem in stems and path.suffix not in SIDECARS}

    @cached_property
    def _read(self) -> dict[tuple[Path, str], Buildings]:
        return {}

    def buildings_in(self, path: Path, crs: str) -> Buildings:
        """Return the buildings of a file in a CRS."""
        if (path, crs) not in self._read:
            is_of_one_image = path != self.label_path
            self._read[path, crs] = read_buildings(path, self.columns, may_be_empty=is_of_one_image).to_crs(crs)
        return self._read[path, crs]

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
        is_folder = self.label_path is not None and self.label_path.is_dir()
        labels = [*self.files_by_stem.values()] if is_folder else [path for path in (self.label_path,) if path]
        files = {"labels of train": labels, "area": [path for path in (self.area_path,) if path]}
        return files | {"look directions": [path for path in (self.look_directions,) if path]}

    @property
    def command_keys(self) -> dict[str, Any]:
        """Return the keys by which other commands find its images."""
        return {"images": self.images}

    @property
    def label_tables(self) -> tuple[Path, ...]:
        """Return the files of the labels."""
        return tuple(self.input_files(PRODUCT)["labels of train"])


SIDECARS = (".cpg", ".dbf", ".prj", ".qix", ".sbn", ".sbx", ".shx", ".qml", ".xml")  # beside a Shapefile or layer


def common_folder(files: Sequence[str]) -> Path:
    """Return the folder that contains all files; the current one where they are addresses."""
    local = [Path(file).resolve() for file in files if Path(file).exists()]
    return Path(os.path.commonpath([path.parent for path in local])) if local else Path()


def check_agreement(headers: Sequence[ImageHeader]) -> None:
    """Raise a UserError where images have other numbers of bands, descriptions or pixel sizes than the first."""
    first = headers[0]
    for other in headers[1:]:
        for what, one, two in (
            ("bands", len(first.bands), len(other.bands)),
            ("descriptions of bands", first.names, other.names),
            ("a pixel size of", round(first.grid.pixel_size, 4), round(other.grid.pixel_size, 4)),
        ):
            if one != two:
                advice = "set data.pixel_size" if what.startswith("a pixel") else "give images of one product"
                raise UserError(
                    f"{other.path} has {what} {two}, but {first.path} has {one}; {advice}",
                    kind="conflict",
                    key=other.path,
                    value=two,
                )


def names_of_bands(header: ImageHeader) -> tuple[str, ...]:
    """Return the names of bands: their descriptions, or band1, band2, ... where one is missing or repeated."""
    if all(header.names) and len(set(header.names)) == len(header.names):
        return header.names
    return tuple(f"band{number}" for number in range(1, len(header.bands) + 1))


def check_names(names: Sequence[str], header: ImageHeader) -> None:
    """Raise a UserError unless there is one name for each band."""
    if len(names) != len(header.bands) or len(set(names)) != len(names):
        raise UserError(
            f"invalid data.band_names={list(names)}: {header.path} has {len(header.bands)} bands, each with a name",
            kind="invalid_value",
            key="data.band_names",
            value=list(names),
        )


def cut_into_tiles(headers: Sequence[ImageHeader], tile_size: int) -> dict[str, tuple[ImageHeader, slice, slice]]:
    """Return image id → image, rows and columns of each tile: as few as have at most `tile_size` rows and columns."""
    stems = Counter(Path(header.path).stem for header in headers)
    folder = common_folder([header.path for header in headers])
    places: dict[str, tuple[ImageHeader, slice, slice]] = {}
    for header in headers:
        path = Path(header.path)
        stem = path.stem
        if stems[stem] > 1:
            stem = "_".join(path.resolve().relative_to(folder).with_suffix("").parts)
        down, across = parts_of(header.grid.height, tile_size), parts_of(header.grid.width, tile_size)
        for i, rows in enumerate(down):
            for j, columns in enumerate(across):
                image_id = stem if len(down) == len(across) == 1 else f"{stem}_r{i}_c{j}"
                places[image_id] = (header, rows, columns)
    return places


def parts_of(length: int, most: int) -> list[slice]:
    """Return the parts of a length, as few as are at most `most` long, of about equal lengths."""
    edges = np.linspace(0, length, -(-length // most) + 1).round().astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]
