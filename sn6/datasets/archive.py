"""An archive of SpaceNet 6 on disk, published or simulated: which tiles there are, their pixels and labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float32, Shaped
from rasterio.errors import RasterioError

from sn6.datasets.headers import Bounds, check_header, index_bounds, read_bounds
from sn6.datasets.labels import archive_labels
from sn6.datasets.layout import (
    NODATA,
    PIXEL,
    PRODUCTS,
    Split,
    geojson_path,
    orientations_path,
    split_folder,
    tile_path,
)
from sn6.datasets.packed_labels import PackedLabels
from sn6.errors import UserError, first_line
from sn6.footprints import Labels
from sn6.formats.geojson import read_geojson_labels

IMAGE_ID = re.compile(r"_(\d{14}_\d{14})_(tile_\d+)\.tif$")  # the strip, then the tile's number


@dataclass(frozen=True)
class Tile:
    """One tile of the index.

    Attributes:
        image_id: such as `20190822070610_20190822070846_tile_3721`
        split: "train" or "test_public"
        strip: the pass, start and end in UTC: the first two fields of the image id
        orientation: 0 imaged from the north, 1 from the south, None where the table lacks the strip
        bounds: west, south, east, north in metres, EPSG:32631
        products: the images that are there
    """

    image_id: str
    split: Split
    strip: str
    orientation: int | None
    bounds: Bounds
    products: tuple[str, ...]


class Archive:
    """Reads the layout of SpaceNet 6.

    =============  =============  =======  ======  =====
    product        bands on disk  dtype    pixels  pixel
    =============  =============  =======  ======  =====
    SAR-Intensity  HH HV VH VV    float32  900     0.5 m   decibels
    PS-RGB         R G B          uint8    900     0.5 m
    PS-RGBNIR      B G R NIR      uint16   900     0.5 m   in spite of its name
    RGBNIR         B G R NIR      uint16   450     1 m
    PAN            one            uint16   900     0.5 m
    =============  =============  =======  ======  =====

    Tiles with products missing, without buildings and with nodata borders are normal. Files are opened where
    they are read, so that an Archive can go to the workers of a DataLoader; what it has read itself stays behind.

    Args:
        root: the folder that holds `train/AOI_11_Rotterdam` and, if at hand, `test_public/AOI_11_Rotterdam`

    Raises:
        UserError: `root` is not an archive
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not split_folder(self.root, "train").is_dir():
            raise UserError(
                f"{self.root} is not an archive: {split_folder(self.root, 'train')} is missing; name "
                "the folder that holds train/AOI_11_Rotterdam, or make one by `python -m sn6.simulate root=...`"
            )

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    @cached_property
    def orientations(self) -> dict[str, int]:
        """Strip → 0 (imaged from the north) or 1 (from the south); empty where there is no table."""
        path = orientations_path(self.root)
        if not path.exists():
            return {}
        table = {}
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 2 or fields[1] not in ("0", "1"):
                raise UserError(f"{path} line {number}: {line!r} is not 'strip 0' or 'strip 1'; mend the line")
            table[fields[0]] = int(fields[1])
        return table

    def has(self, split: Split, product: str) -> bool:
        """Whether there is a tile of the product."""
        return any(IMAGE_ID.search(path.name) for path in (split_folder(self.root, split) / product).glob("*.tif"))

    def tiles(self, split: Split, product: str) -> list[Tile]:
        """The tiles of `split` that have `product`, by image id.

        Raises:
            UserError: there is none, or one cannot be opened or has another CRS or number of bands
        """
        products = self.products(split)
        found = sorted(image_id for image_id, names in products.items() if product in names)
        if not found:
            raise UserError(
                f"{split_folder(self.root, split)} has no {product} tile; products there: "
                f"{', '.join(sorted({name for names in products.values() for name in names})) or 'none'}"
            )
        bounds = index_bounds(self.root, split, product, found)
        return [self._tile(split, image_id, bounds[image_id], products[image_id]) for image_id in found]

    def products(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Image id → products at hand, from the names of the files alone."""
        found: dict[str, list[str]] = {}
        for product in PRODUCTS:
            for path in (split_folder(self.root, split) / product).glob("*.tif"):
                if match := IMAGE_ID.search(path.name):
                    found.setdefault(f"{match[1]}_{match[2]}", []).append(product)
        return {image_id: tuple(names) for image_id, names in found.items()}

    def tile(self, split: Split, image_id: str) -> Tile:
        """One tile, without a look at the others.

        Raises:
            UserError: there is no such tile, or it cannot be opened or has another CRS or number of bands
        """
        products = self.products(split).get(image_id)
        if products is None:
            raise UserError(f"{split_folder(self.root, split)} has no tile {image_id}; check the image id")
        bounds = read_bounds(tile_path(self.root, split, products[0], image_id), products[0])
        return self._tile(split, image_id, bounds, products)

    def _tile(self, split: Split, image_id: str, bounds: Bounds, products: tuple[str, ...]) -> Tile:
        strip = image_id.rpartition("_tile_")[0]
        return Tile(image_id, split, strip, self.orientations.get(strip), bounds, products)

    def read(
        self, tile: Tile, product: str, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """The pixels of a tile on the grid of 0.5 m, in the tile's own frame, as they are on disk.

        Args:
            tile: of this archive
            product: one that the tile has
            bands: counted from 1, in the order wanted; a band may come several times

        Returns:
            The bands, and where there is data: a pixel is nodata when all bands on disk are 0.

        Raises:
            UserError: the file is broken, holds NaN or infinity, or has no such band
        """
        path = tile_path(self.root, tile.split, product, tile.image_id)
        try:
            with rasterio.open(path) as source:
                check_header(source, product, path)
                pixels = source.read(out_dtype=np.float32)
        except RasterioError as error:
            raise UserError(
                f"{path} cannot be read, it is broken or cut short; fetch it again ({first_line(error)})"
            ) from None
        if not np.isfinite(pixels).all():
            row, column = np.argwhere(~np.isfinite(pixels).all(axis=0))[0]
            raise UserError(f"{path} holds NaN or infinity, first at row {row}, column {column}; fetch it again")
        pixels = on_label_grid(pixels, product)
        valid = (pixels != NODATA).any(axis=0)
        return chosen_bands(pixels, bands), valid

    def labels(self, tile: Tile) -> Labels | None:
        """The footprints of a tile in its own frame (float pixels of 0.5 m, x then y); None where unknown.

        Of the two forms the CSV wins where it names the tile: the organisers score against it and it alone has
        heights. The GeoJSON is read for the tiles that the CSV lacks, or where there is no CSV.

        Raises:
            UserError: the file is malformed
        """
        if tile.split == "test_public":
            return self._test_labels.get(tile.image_id)
        if (labels := self._train_labels.get(tile.image_id)) is not None:
            return labels
        path = geojson_path(self.root, tile.image_id)
        west, _, _, north = tile.bounds
        return read_geojson_labels(path, (west, north)) if path.exists() else None

    def has_labels(self, tile: Tile) -> bool:
        """Whether the footprints of a tile are known; none of them is made."""
        if tile.split == "test_public":
            return tile.image_id in self._test_labels
        return tile.image_id in self._train_labels or geojson_path(self.root, tile.image_id).exists()

    @cached_property
    def _train_labels(self) -> PackedLabels:
        return archive_labels(self.root, "train")

    @cached_property
    def _test_labels(self) -> PackedLabels:
        return archive_labels(self.root, "test_public")


def chosen_bands(pixels: Shaped[np.ndarray, "c h w"], bands: Sequence[int]) -> Shaped[np.ndarray, "_ h w"]:
    """The bands that are wanted, counted from 1; no copy where these are all in their order."""
    return pixels if list(bands) == list(range(1, len(pixels) + 1)) else pixels[np.asarray(bands) - 1]


def on_label_grid(pixels: Shaped[np.ndarray, "c h w"], product: str) -> Shaped[np.ndarray, "c _ _"]:
    """Pixels of a product on the grid of 0.5 m: those of the 1 m product come twice in each direction."""
    repeat = round(PRODUCTS[product].pixel / PIXEL)
    return pixels.repeat(repeat, axis=1).repeat(repeat, axis=2) if repeat > 1 else pixels
