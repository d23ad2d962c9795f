"""The declaration of a data set: its products, and how its tiles, their pixels and their labels are found.

A data set is a subclass of `DataSet`. Everything else in the package asks it, and knows no file names, bands, units,
CRS or pixel size of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32

from sn6.datasets.cache import Fingerprint, image_fingerprint
from sn6.datasets.radar_units import Units
from sn6.errors import UserError
from sn6.footprints import Labels

Split = Literal["train", "test_public"]
DECIBELS = Units()
WORLD = "EPSG:6933"  # metres everywhere on earth, of equal area: in it tiles of several UTM zones are compared
Bounds: TypeAlias = tuple[float, float, float, float]  # west, south, east, north in metres of the tile's CRS


@dataclass(frozen=True)
class Product:
    """One kind of image.

    Attributes:
        name: of the product
        bands: names in their order on disk
        dtype: of the pixels on disk, or as they are read where that interpolates
        pixel_size: m, on disk
        sensor: radar, with values in decibels, or optical, with counts
        nodata: pixels that have this value in every band have no data; None where only the files say what has none
        repeat: how often a sample repeats a pixel along both axes
        default_bands: bands of a sample, counted from 1, unless others are chosen; None for all in their order
        units: of the values of radar, which become decibels while they are read
        limit: greater than all values, for histograms; None where values are not counted
        stored_range: dB, least and greatest value of radar that a store holds, in 65536 steps
    """

    name: str
    bands: tuple[str, ...]
    dtype: str
    pixel_size: float
    sensor: Literal["radar", "optical"]
    nodata: float | None = 0.0
    repeat: int = 1
    default_bands: tuple[int, ...] | None = None
    units: Units = DECIBELS
    limit: float | None = None
    stored_range: tuple[float, float] = (0.0, 128.0)

    @property
    def optical(self) -> bool:
        """Return whether it is an optical image."""
        return self.sensor == "optical"

    @property
    def grid(self) -> float:
        """Return the pixel size of samples and labels in m."""
        return self.pixel_size / self.repeat

    @property
    def numbers(self) -> range:
        """Return the numbers of all bands, from 1."""
        return range(1, len(self.bands) + 1)

    def band_names(self, bands: Sequence[int]) -> list[str]:
        """Return the names of bands, by their numbers from 1."""
        return [self.bands[band - 1] for band in bands]


@dataclass(frozen=True)
class Tile:
    """One tile of the index.

    Attributes:
        image_id: its name, unique in the data set
        split: "train" or "test_public"
        strip: the pass of the sensor that imaged it
        orientation: look direction, 0 imaged from the north, 1 from the south, None where it is unknown
        bounds: west, south, east, north in metres of the frame in which the tiles of the data set overlap
        products: names of the products that have an image of the tile
        placed: west, south, east, north in metres of its own CRS; None where that is the frame
        crs: its own; None for that of the data set
    """

    image_id: str
    split: Split
    strip: str
    orientation: int | None
    bounds: Bounds
    products: tuple[str, ...]
    placed: Bounds | None = None
    crs: str | None = None

    @property
    def corner(self) -> tuple[float, float]:
        """Return its west and north edge in its own CRS."""
        west, _, _, north = self.placed or self.bounds
        return west, north

    def size(self, pixel_size: float) -> tuple[float, float]:
        """Return height and width in pixels of `pixel_size` m, not rounded."""
        west, south, east, north = self.placed or self.bounds
        return (north - south) / pixel_size, (east - west) / pixel_size


class DataSet(ABC):
    """Images of the ground with labels of its buildings, on disk.

    It is pickled without what it has read, so that it can be sent to the workers of a DataLoader.

    Attributes:
        name: of the data set
        root: folder that holds it, and its cache `.sn6`
        products: by name
        crs: of its tiles, or of most of them where they are in several, as "EPSG:<code>"
        pixel_size: m, of samples and labels
        splits: of its tiles
        path_keys: arguments that say where it is; a copy at another path is the same data set
        label_key: key of the config that gives the labels
        partition: of `sn6.data.partitions` that divides its ground unless another is chosen
        classes: names of the classes of buildings, in the order of their numbers in the labels; none for one class
    """

    name: ClassVar[str]
    root: Path
    products: Mapping[str, Product]
    crs: str
    pixel_size: float
    splits: ClassVar[tuple[Split, ...]] = ("train",)
    path_keys: ClassVar[tuple[str, ...]] = ("root",)
    label_key: ClassVar[str] = "data.root"
    partition: ClassVar[Literal["columns", "ten_columns", "blocks"]] = "blocks"
    classes: tuple[str, ...] = ()

    @property
    def frame(self) -> str:
        """Return the CRS of the bounds of its tiles."""
        return self.crs

    @property
    def radar(self) -> str | None:
        """Return the name of its radar product; None where all are optical."""
        return next((name for name, product in self.products.items() if not product.optical), None)

    def product(self, name: str | None, key: str) -> Product:
        """Return a product.

        Args:
            name: of the product; None for the first one
            key: the option that names it, for the message

        Raises:
            UserError: it has no product of this name
        """
        if name is None:
            return next(iter(self.products.values()))
        if name not in self.products:
            raise UserError(
                f"unknown {key}={name}; choose from {', '.join(self.products)}",
                kind="unknown_value",
                key=key,
                value=name,
            )
        return self.products[name]

    @classmethod
    def channels(cls, data: Mapping[str, Any]) -> int:
        """Return the number of bands of a sample, for a network, without opening files where they are not needed.

        Args:
            data: the node of a config, whose `bands` are null
        """
        product = cls.products[data["product"] or next(iter(cls.products))]
        return len(product.default_bands or product.bands)

    @abstractmethod
    def products_of(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the names of the products of each tile by image id, from the file names only."""

    def has_product(self, split: Split, product: str) -> bool:
        """Return whether any tile of the split has the product."""
        return any(product in names for names in self.products_of(split).values())

    def main_product(self, split: Split = "train") -> str | None:
        """Return the radar product of a split, whose tiles are divided into folds for every product; None without."""
        return self.radar if self.radar is not None and self.has_product(split, self.radar) else None

    @abstractmethod
    def tiles(self, split: Split, product: str) -> list[Tile]:
        """Return the tiles of `split` that have `product`, sorted by image id.

        Raises:
            UserError: there is none, or one cannot be used
        """

    @abstractmethod
    def tile(self, split: Split, image_id: str) -> Tile:
        """Return one tile without opening the files of the others.

        Raises:
            UserError: the tile does not exist or cannot be used
        """

    def origin(self, tile: Tile) -> str:
        """Return in words what a tile was cut from."""
        return tile.strip

    def sensing_time(self, tile: Tile) -> str | None:
        """Return the time at which a tile was sensed, in ISO 8601, UTC; None where it is not known."""
        return None

    def strips_of(self, split: Split) -> dict[str, int | None]:
        """Return the look direction of each strip of a split by its name."""
        product = self.radar or next(iter(self.products))
        if not self.has_product(split, product):
            return {}
        return {tile.strip: tile.orientation for tile in self.tiles(split, product)}

    @abstractmethod
    def image_path(self, tile: Tile, product: str) -> Path:
        """Return the file of an image."""

    def fingerprint(self, tile: Tile, product: str) -> Fingerprint:
        """Return numbers that change when `read` gives other pixels: those of the state of the file."""
        return image_fingerprint(self.image_path(tile, product))

    @abstractmethod
    def read(
        self, tile: Tile, product: str, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read the pixels of a tile on the grid of the labels, in the tile's own frame and the units of the product.

        Args:
            tile: a tile of this data set
            product: one that the tile has
            bands: counted from 1, in the order of the result; a band may be repeated

        Returns:
            The bands, 0 on nodata, and which pixels are valid: all bands on disk decide, see `sn6.datasets.raster`.

        Raises:
            UserError: the file is broken, or its header is not the product's
        """

    def read_rectangle(
        self, tile: Tile, product: str, bands: Sequence[int], rows: slice, columns: slice
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle of a tile, equal to that part of what `read` returns; a subclass may read it alone.

        Args:
            tile: see `read`
            product: see `read`
            bands: see `read`
            rows: slice with start and stop
            columns: slice with start and stop
        """
        pixels, valid = self.read(tile, product, bands)
        return pixels[:, rows, columns], valid[rows, columns]

    @abstractmethod
    def labels(self, tile: Tile) -> Labels | None:
        """Return the footprints of a tile in its own frame (float pixels, x then y); None where they are unknown.

        Raises:
            UserError: a file of labels is malformed
        """

    @abstractmethod
    def has_labels(self, tile: Tile) -> bool:
        """Return whether the footprints of a tile are known, without building them."""

    @abstractmethod
    def input_files(self, product: str) -> dict[str, list[Path]]:
        """Return the files besides the images that a run on `product` depends on, by the name of their part."""

    @property
    def command_keys(self) -> dict[str, Any]:
        """Return the keys by which other commands find its images, such as `root`."""
        return {"images": self.root}

    @property
    def label_tables(self) -> tuple[Path, ...]:
        """Return the tables that give the labels tile by tile, those of the training tiles first; none where labels are
        found by their place.
        """
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was changed or left out while its labels were read, a line each that begins with the file."""
        return ()

    @property
    def has_test_labels(self) -> bool:
        """Return whether the labels of the test tiles are known."""
        return False

    @property
    def label_format(self) -> str:
        """Return in which coordinates labels are to be given, for a message."""
        return "a vector file with its CRS"

    def missing_orientation(self, tile: Tile) -> UserError:
        """Return the error of a tile whose look direction is needed and not known."""
        return UserError(
            f"the look direction of the tile {tile.image_id} is not known; set data.orient=false",
            kind="missing_value",
            key="data.orient",
            value=True,
        )
