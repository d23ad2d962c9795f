"""Read an archive of SpaceNet 6 on disk, published or simulated: its tiles, their pixels and their labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from rasterio.errors import RasterioError

from sn6.datasets.headers import Bounds, check_header, index_bounds, position_fault, read_bounds
from sn6.datasets.labels import load_labels
from sn6.datasets.layout import (
    CRS,
    PIXEL,
    PRODUCTS,
    Split,
    geojson_path,
    orientations_path,
    split_folder,
    tile_path,
)
from sn6.datasets.packed_labels import PackedLabels
from sn6.datasets.raster import TILE_DRIVER, open_raster, read_window
from sn6.errors import UserError, first_line
from sn6.footprints import Labels
from sn6.formats.geojson import read_geojson_labels

# The strip, then the number of the tile; no hidden file, such as the ._* of macOS.
IMAGE_ID = re.compile(r"^[^.].*_(\d{14}_\d{14})_(tile_\d+)\.tif$")


@dataclass(frozen=True)
class Tile:
    """One tile of the index.

    Attributes:
        image_id: such as `20190822070610_20190822070846_tile_3721`
        split: "train" or "test_public"
        strip: the pass, its start and end in UTC: the first two fields of the image id
        orientation: look direction, 0 imaged from the north, 1 from the south, None where the table lacks the strip
        bounds: west, south, east, north in metres, EPSG:32631
        products: products that have an image of the tile
    """

    image_id: str
    split: Split
    strip: str
    orientation: int | None
    bounds: Bounds
    products: tuple[str, ...]


class Archive:
    """Read an archive in the layout of SpaceNet 6.

    =============  =============  =======  ======  =====
    product        bands on disk  dtype    pixels  pixel
    =============  =============  =======  ======  =====
    SAR-Intensity  HH HV VH VV    float32  900     0.5 m   decibels
    PS-RGB         R G B          uint8    900     0.5 m
    PS-RGBNIR      B G R NIR      uint16   900     0.5 m   not the order of its name
    RGBNIR         B G R NIR      uint16   450     1 m
    PAN            one            uint16   900     0.5 m
    =============  =============  =======  ======  =====

    Tiles with products missing, without buildings and with nodata borders are normal. Files are opened where they are
    read, and an Archive is pickled without what it has read, so that it can be sent to the workers of a DataLoader.

    Args:
        root: folder with `train/AOI_11_Rotterdam` and optionally `test_public/AOI_11_Rotterdam`

    Raises:
        UserError: `root` is not an archive
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not split_folder(self.root, "train").is_dir():
            raise UserError(
                f"{self.root} is not an archive: {split_folder(self.root, 'train')} is missing; give the folder that "
                "contains train/AOI_11_Rotterdam, or simulate an archive with `python -m sn6.simulate root=...`",
                kind="not_found",
                key=self.root,
            )

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    @cached_property
    def orientations(self) -> dict[str, int]:
        """Return the look direction of each strip, 0 (north) or 1 (south); empty where there is no table."""
        path = orientations_path(self.root)
        if not path.exists():
            return {}
        table = {}
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 2 or fields[1] not in ("0", "1"):
                raise UserError(
                    f"{path}, line {number}: expected 'strip 0' or 'strip 1', not {line!r}; correct the line",
                    kind="unreadable",
                    key=path,
                    value=line,
                )
            table[fields[0]] = int(fields[1])
        return table

    def has_product(self, split: Split, product: str) -> bool:
        """Return whether any tile of the split has the product."""
        return any(IMAGE_ID.search(path.name) for path in (split_folder(self.root, split) / product).glob("*.tif"))

    def tiles(self, split: Split, product: str) -> list[Tile]:
        """Return the tiles of `split` that have `product`, sorted by image id.

        Raises:
            UserError: there is none, or one cannot be opened, is not as its product, or not where another product is
        """
        products = self.products(split)
        image_ids = sorted(image_id for image_id, names in products.items() if product in names)
        if not image_ids:
            folder = split_folder(self.root, split)
            available = ", ".join(sorted({name for names in products.values() for name in names})) or "none"
            raise UserError(
                f"{folder} has no {product} tile; products in this folder: {available}",
                kind="not_found",
                key=folder,
                value=product,
            )
        bounds = index_bounds(self.root, split, product, image_ids)
        self._check_positions(split, product, bounds, products)
        return [self._tile(split, image_id, bounds[image_id], products[image_id]) for image_id in image_ids]

    def _check_positions(
        self, split: Split, product: str, bounds: dict[str, Bounds], products: dict[str, tuple[str, ...]]
    ) -> None:
        """Raise a UserError where a tile of `product` is not where the first product of the tile is."""
        for first in {products[image_id][0] for image_id in bounds} - {product}:
            image_ids = sorted(image_id for image_id, names in products.items() if first in names)
            for image_id, other in index_bounds(self.root, split, first, image_ids).items():
                if image_id in bounds and products[image_id][0] == first:
                    fault = position_fault(bounds[image_id], other, first)
                    if fault is not None:
                        path = tile_path(self.root, split, product, image_id)
                        raise UserError(f"{path}: {fault.message}", kind="wrong_data", key=path, value=fault.value)

    def products(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the products of each tile by image id, from the file names only."""
        products: dict[str, list[str]] = {}
        for product in PRODUCTS:
            for path in (split_folder(self.root, split) / product).glob("*.tif"):
                if match := IMAGE_ID.search(path.name):
                    products.setdefault(f"{match[1]}_{match[2]}", []).append(product)
        return {image_id: tuple(names) for image_id, names in products.items()}

    def tile(self, split: Split, image_id: str) -> Tile:
        """Return one tile without opening the files of the others.

        Raises:
            UserError: the tile does not exist, cannot be opened or is not as its product
        """
        products = self.products(split).get(image_id)
        if products is None:
            folder = split_folder(self.root, split)
            raise UserError(
                f"{folder} has no tile {image_id}; check the image id", kind="not_found", key=folder, value=image_id
            )
        bounds = read_bounds(tile_path(self.root, split, products[0], image_id), products[0])
        return self._tile(split, image_id, bounds, products)

    def _tile(self, split: Split, image_id: str, bounds: Bounds, products: tuple[str, ...]) -> Tile:
        strip = image_id.rpartition("_tile_")[0]
        return Tile(image_id, split, strip, self.orientations.get(strip), bounds, products)

    def read(
        self, tile: Tile, product: str, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read the pixels of a tile on the grid of 0.5 m, in the tile's own frame and the units on disk.

        Args:
            tile: a tile of this archive
            product: one that the tile has
            bands: counted from 1, in the order of the result; a band may be repeated

        Returns:
            The bands, 0 on nodata, and which pixels are valid: all bands on disk decide, see `sn6.datasets.raster`.

        Raises:
            UserError: the file is broken, or its header is not the product's
        """
        path = tile_path(self.root, tile.split, product, tile.image_id)
        try:
            with open_raster(path, TILE_DRIVER) as source:
                check_header(source, product, path)
                pixels, valid = read_window(source, source.indexes)
        except RasterioError as error:
            raise UserError(
                f"{path} is broken or truncated ({first_line(error)}); download it again", kind="unreadable", key=path
            ) from None
        return select_bands(to_label_grid(pixels, product), bands), to_label_grid(valid[None], product)[0]

    def labels(self, tile: Tile) -> Labels | None:
        """Return the footprints of a tile in its own frame (float pixels of 0.5 m, x then y); None where unknown.

        The CSV takes precedence where it lists the tile: it is the ground truth of the challenge's score, and only it
        has heights. The GeoJSON is read for tiles that the CSV lacks, or where there is no CSV.

        Raises:
            UserError: the file is malformed
        """
        if tile.split == "test_public":
            return self._test_labels.get(tile.image_id)
        if (labels := self._train_labels.get(tile.image_id)) is not None:
            return labels
        path = geojson_path(self.root, tile.image_id)
        west, _, _, north = tile.bounds
        return read_geojson_labels(path, (west, north), CRS, PIXEL) if path.exists() else None

    def has_labels(self, tile: Tile) -> bool:
        """Return whether the footprints of a tile are known, without building them."""
        if tile.split == "test_public":
            return tile.image_id in self._test_labels
        return tile.image_id in self._train_labels or geojson_path(self.root, tile.image_id).exists()

    def geojson_files(self, product: str) -> list[Path]:
        """Return the GeoJSON of each training tile with `product` whose footprints are read from there."""
        with_product = sorted(image_id for image_id, names in self.products("train").items() if product in names)
        paths = [geojson_path(self.root, image_id) for image_id in with_product if image_id not in self._train_labels]
        return [path for path in paths if path.exists()]

    @cached_property
    def _train_labels(self) -> PackedLabels:
        return load_labels(self.root, "train")

    @cached_property
    def _test_labels(self) -> PackedLabels:
        return load_labels(self.root, "test_public")


def select_bands(pixels: Shaped[np.ndarray, "c h w"], bands: Sequence[int]) -> Shaped[np.ndarray, "_ h w"]:
    """Return the given bands, counted from 1; no copy if these are all bands in their order."""
    return pixels if list(bands) == list(range(1, len(pixels) + 1)) else pixels[np.asarray(bands) - 1]


def to_label_grid(pixels: Shaped[np.ndarray, "c h w"], product: str) -> Shaped[np.ndarray, "c _ _"]:
    """Return the pixels of a product on the grid of 0.5 m; pixels of 1 m are repeated in both directions."""
    repeat = round(PRODUCTS[product].pixel / PIXEL)
    return pixels.repeat(repeat, axis=1).repeat(repeat, axis=2) if repeat > 1 else pixels
