"""Data sets with one GeoTIFF for each tile and product, north-up in one CRS."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from rasterio.errors import RasterioError
from rasterio.windows import Window

from sn6.datasets.declaration import Bounds, DataSet, Product, Split, Tile
from sn6.datasets.headers import check_header, index_bounds, position_fault, read_bounds
from sn6.datasets.raster import TILE_DRIVER, open_raster, read_repeated, read_window
from sn6.errors import UserError, first_line


class TileFiles(DataSet):
    """Read tiles from files. Subclasses say how the files are named, and where the labels are.

    Tiles with products missing, without buildings and with nodata borders are normal. Files are opened where they are
    read.
    """

    @abstractmethod
    def path_of(self, split: Split, product: str, image_id: str) -> Path:
        """Return the path of a GeoTIFF."""

    def strip_of(self, image_id: str) -> str:
        """Return the pass of the sensor that imaged a tile: one of its own, unless a subclass knows better."""
        return image_id

    def orientation_of(self, strip: str) -> int | None:
        """Return the look direction of a pass, see `Tile`: unknown, unless a subclass knows it."""
        return None

    def folder_of(self, split: Split) -> Path:
        """Return the folder of a split, for messages."""
        return self.root

    def image_path(self, tile: Tile, product: str) -> Path:
        """Return the GeoTIFF of an image."""
        return self.path_of(tile.split, product, tile.image_id)

    def tiles(self, split: Split, product: str) -> list[Tile]:
        """Return the tiles of `split` that have `product`, sorted by image id.

        Raises:
            UserError: there is none, or one cannot be opened, is not as its product, or not where another product is
        """
        products = self.products_of(split)
        image_ids = sorted(image_id for image_id, names in products.items() if product in names)
        if not image_ids:
            folder = self.folder_of(split)
            available = ", ".join(sorted({name for names in products.values() for name in names})) or "none"
            raise UserError(
                f"{folder} has no {product} tile; products in this folder: {available}",
                kind="not_found",
                key=folder,
                value=product,
            )
        bounds = self._index_bounds(split, product, image_ids)
        self._check_positions(split, product, bounds, products)
        return [self._tile(split, image_id, bounds[image_id], products[image_id]) for image_id in image_ids]

    def _index_bounds(self, split: Split, product: str, image_ids: Sequence[str]) -> dict[str, Bounds]:
        """Return the bounds of tiles by image id, see `index_bounds`."""
        paths = {image_id: self.path_of(split, product, image_id) for image_id in image_ids}
        return index_bounds(self.root, split, self.products[product], self.crs, paths)

    def _check_positions(
        self, split: Split, product: str, bounds: dict[str, Bounds], products: dict[str, tuple[str, ...]]
    ) -> None:
        """Raise a UserError where a tile of `product` is not where the first product of the tile is."""
        for first in {products[image_id][0] for image_id in bounds} - {product}:
            image_ids = sorted(image_id for image_id, names in products.items() if first in names)
            for image_id, other in self._index_bounds(split, first, image_ids).items():
                if image_id in bounds and products[image_id][0] == first:
                    fault = position_fault(bounds[image_id], other, first)
                    if fault is not None:
                        path = self.path_of(split, product, image_id)
                        raise UserError(f"{path}: {fault.message}", kind="wrong_data", key=path, value=fault.value)

    def tile(self, split: Split, image_id: str) -> Tile:
        """Return one tile without opening the files of the others.

        Raises:
            UserError: the tile does not exist, cannot be opened or is not as its product
        """
        products = self.products_of(split).get(image_id)
        if products is None:
            folder = self.folder_of(split)
            raise UserError(
                f"{folder} has no tile {image_id}; check the image id", kind="not_found", key=folder, value=image_id
            )
        bounds = read_bounds(self.path_of(split, products[0], image_id), self.products[products[0]], self.crs)
        return self._tile(split, image_id, bounds, products)

    def _tile(self, split: Split, image_id: str, bounds: Bounds, products: tuple[str, ...]) -> Tile:
        strip = self.strip_of(image_id)
        return Tile(image_id, split, strip, self.orientation_of(strip), bounds, products)

    def read(
        self, tile: Tile, product: str, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read the pixels of a tile; arguments, result and errors of `DataSet.read`."""
        pixels, valid = self._read(tile, product)
        declared = self.products[product]
        return select_bands(to_label_grid(pixels, declared), bands), to_label_grid(valid[None], declared)[0]

    def read_rectangle(
        self, tile: Tile, product: str, bands: Sequence[int], rows: slice, columns: slice
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a rectangle of a tile alone; arguments, result and errors of `DataSet.read_rectangle`."""
        read = partial(self._read, tile, product)
        pixels, valid = read_repeated(read, rows, columns, self.products[product].repeat)
        return select_bands(pixels, bands), valid

    def _read(
        self, tile: Tile, product: str, rows: slice | None = None, columns: slice | None = None
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read all bands of a file, or of a rectangle of it, in its own pixels."""
        path, declared = self.image_path(tile, product), self.products[product]
        window = None if rows is None or columns is None else Window.from_slices(rows, columns)
        try:
            with open_raster(path, TILE_DRIVER) as source:
                check_header(source, declared, self.crs, path)
                pixels, valid = read_window(source, source.indexes, window, declared.nodata)
        except RasterioError as error:
            raise UserError(
                f"{path} is broken or truncated ({first_line(error)}); download it again", kind="unreadable", key=path
            ) from None
        return declared.units.to_decibels(pixels, valid)


def select_bands(pixels: Shaped[np.ndarray, "c h w"], bands: Sequence[int]) -> Shaped[np.ndarray, "_ h w"]:
    """Return the given bands, counted from 1; no copy if these are all bands in their order."""
    return pixels if list(bands) == list(range(1, len(pixels) + 1)) else pixels[np.asarray(bands) - 1]


def to_label_grid(pixels: Shaped[np.ndarray, "c h w"], product: Product) -> Shaped[np.ndarray, "c _ _"]:
    """Return the pixels of a product on the grid of the labels: larger ones are repeated in both directions."""
    repeat = product.repeat
    return pixels.repeat(repeat, axis=1).repeat(repeat, axis=2) if repeat > 1 else pixels
