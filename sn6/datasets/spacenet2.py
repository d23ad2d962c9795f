"""SpaceNet 2: Las Vegas, Paris, Shanghai and Khartoum by the satellite WorldView-3, with the outlines of buildings.

==============  =======================  ======  ========  =======
product         bands on disk            dtype   pixels    pixel
==============  =======================  ======  ========  =======
RGB-PanSharpen  R G B                    uint16  650×650   0.3 m
MUL-PanSharpen  C B G Y R RE NIR1 NIR2   uint16  650×650   0.3 m
PAN             one                      uint16  650×650   0.3 m
MUL             C B G Y R RE NIR1 NIR2   uint16  162×162   1.2 m
==============  =======================  ======  ========  =======

Images are in degrees, about 200 m wide; here all products of a tile are warped to one grid of 0.3 m in the UTM zone of
the tile, that of its first product. The boxes of neighbouring tiles in metres overlap by some metres, so that a fold
drops the training tiles beside its validation tiles. Labels are one GeoJSON for each tile, in degrees, empty where it
has no building. The labels of the test tiles are not published.

Source: Van Etten, Lindenbaum and Bacastow 2018, "SpaceNet: A Remote Sensing Dataset and Challenge Series",
https://arxiv.org/abs/1807.01232; the published tarballs (CC BY-SA 4.0).
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from rasterio.warp import transform_bounds

from sn6.datasets.declaration import WORLD, DataSet, Product, Split, Tile
from sn6.datasets.image_files import ImageHeader, read_header, read_headers
from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.datasets.vector_labels import LabelColumns, read_buildings
from sn6.errors import UserError
from sn6.footprints import Labels

GRID = 0.3  # metres; the grid of every sample
NODATA = 0  # in every product
MULTISPECTRAL = ("C", "B", "G", "Y", "R", "RE", "NIR1", "NIR2")  # coastal, blue, green, yellow, red, red edge
PRODUCTS = {  # uint16 on disk, interpolated while they are read
    product.name: product
    for product in (
        Product("RGB-PanSharpen", ("R", "G", "B"), "float32", GRID, "optical", NODATA),
        Product("MUL-PanSharpen", MULTISPECTRAL, "float32", GRID, "optical", NODATA),
        Product("PAN", ("PAN",), "float32", GRID, "optical", NODATA),
        Product("MUL", MULTISPECTRAL, "float32", GRID, "optical", NODATA),  # interpolated from 1.2 m
    )
}
# AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif of the tarballs
IMAGE = re.compile(r"^(RGB-PanSharpen|MUL-PanSharpen|PAN|MUL)_(AOI_[2-5]_[A-Za-z]+)_(img\d+)\.tif$")
# AOI_2_Vegas/PS-RGB/SN2_buildings_train_AOI_2_Vegas_PS-RGB_img1.tif, as the files are named one by one on S3
NEW_IMAGE = re.compile(r"^SN2_buildings_train_(AOI_[2-5]_[A-Za-z]+)_PS-RGB_(img\d+)\.tif$")
NEW_LABELS = "SN2_buildings_train_{}_geojson_buildings_{}.geojson"


class SpaceNet2(DataSet):
    """Read the training tiles of SpaceNet 2.

    Args:
        root: folder with `AOI_2_Vegas_Train`, `AOI_3_Paris_Train`, `AOI_4_Shanghai_Train` and `AOI_5_Khartoum_Train`,
            any of them, or one of these; searched recursively

    Raises:
        UserError: `root` has no image of a training tile
    """

    name = "SpaceNet 2"
    products = PRODUCTS
    pixel_size = GRID
    frame = WORLD

    def __init__(self, root: str | None) -> None:
        if root is None:
            raise UserError(
                "data.root is not set; give the folder that contains AOI_2_Vegas_Train or another city",
                kind="missing_value",
                key="data.root",
            )
        self.root = Path(root)
        self.files = find_images(self.root)
        if not self.files:
            raise UserError(
                f"{self.root} has no image of SpaceNet 2, such as "
                "AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif; give the folder that contains "
                "the tarballs' folders",
                kind="not_found",
                key=self.root,
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "files": self.files}

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """Return the grid of each tile by its image id."""
        first = {image_id: next(iter(files.items())) for image_id, files in self.files.items()}
        headers = read_headers(self.root, [str(path) for _, path in first.values()], GRID)
        for (product, _), header in zip(first.values(), headers, strict=True):
            check_bands(header, PRODUCTS[product])
        return {image_id: header.grid for image_id, header in zip(first, headers, strict=True)}

    @cached_property
    def crs(self) -> str:  # type: ignore[override]
        """Return the UTM zone of most tiles."""
        return Counter(grid.crs for grid in self.grids.values()).most_common(1)[0][0]

    def products_of(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the names of the products of each tile by image id."""
        return {image_id: tuple(files) for image_id, files in self.files.items()} if split == "train" else {}

    def tiles(self, split: Split, product: str) -> list[Tile]:
        """Return the tiles that have `product`, sorted by image id."""
        tiles = [self.tile(split, image_id) for image_id, names in self.products_of(split).items() if product in names]
        if not tiles:
            raise UserError(
                f"{self.root} has no {product} tile in {split}; choose another data.product",
                kind="not_found",
                key=self.root,
                value=product,
            )
        path = self.image_path(tiles[0], product)
        check_bands(read_header(str(path), GRID), PRODUCTS[product])
        return tiles

    def tile(self, split: Split, image_id: str) -> Tile:
        """Return one tile; its strip is its city."""
        names = self.products_of(split).get(image_id)
        if names is None:
            raise UserError(
                f"{self.root} has no tile {image_id}; check the image id",
                kind="not_found",
                key=self.root,
                value=image_id,
            )
        grid = self.grids[image_id]
        placed = grid.bounds(slice(0, grid.height), slice(0, grid.width))
        bounds = transform_bounds(grid.crs, self.frame, *placed)
        return Tile(image_id, split, image_id.rpartition("_")[0], None, bounds, names, placed, grid.crs)

    def image_path(self, tile: Tile, product: str) -> Path:
        """Return the file of an image."""
        return self.files[tile.image_id][product]

    def read(
        self, tile: Tile, product: str, bands: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read the pixels of a tile; arguments, result and errors of `DataSet.read`."""
        grid, declared = self.grids[tile.image_id], PRODUCTS[product]
        path = str(self.image_path(tile, product))
        image = PlacedImage(path, grid, tuple(declared.numbers), True, Units(), declared.nodata)
        return image.read(slice(0, grid.height), slice(0, grid.width), bands)

    def labels(self, tile: Tile) -> Labels | None:
        """Return the footprints of a tile in its own frame; None where they are unknown."""
        if tile.image_id not in self._labels and self.has_labels(tile):
            buildings = read_buildings(self.label_path(tile.image_id), LabelColumns(), may_be_empty=True)
            in_zone = buildings.to_crs(tile.crs or self.crs)
            self._labels[tile.image_id] = in_zone.labels(tile.placed or tile.bounds, GRID)
        return self._labels.get(tile.image_id)

    @cached_property
    def _labels(self) -> dict[str, Labels]:
        return {}

    def has_labels(self, tile: Tile) -> bool:
        """Return whether the footprints of a tile are known."""
        return self.label_path(tile.image_id).exists()

    def label_path(self, image_id: str) -> Path:
        """Return the GeoJSON of a tile, whose name follows from that of its image."""
        image = next(iter(self.files[image_id].values()))
        folder = image.parent.parent
        if NEW_IMAGE.match(image.name):
            city, _, number = image_id.rpartition("_")
            return folder / "geojson_buildings" / NEW_LABELS.format(city, number)
        return folder / "geojson" / "buildings" / f"buildings_{image_id}.geojson"

    def input_files(self, product: str) -> dict[str, list[Path]]:
        """Return the files besides the images that a run depends on."""
        return {"labels of train": [self.label_path(image_id) for image_id in self.files]}


def find_images(root: Path) -> dict[str, dict[str, Path]]:
    """Return image id → product → file of the training tiles below a folder, in the order of `PRODUCTS`."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.rglob("*_img*.tif")):
        if (match := IMAGE.match(path.name)) and path.parent.parent.name == f"{match[2]}_Train":
            product, city, number = match.groups()
        elif match := NEW_IMAGE.match(path.name):
            product, (city, number) = "RGB-PanSharpen", match.groups()
        else:  # of the test tiles, or of the tiles with roads, which have the same names
            continue
        found.setdefault(f"{city}_{number}", {})[product] = path
    ordered = {image_id: {name: files[name] for name in PRODUCTS if name in files} for image_id, files in found.items()}
    return dict(sorted(ordered.items()))


def check_bands(header: ImageHeader, product: Product) -> None:
    """Raise a UserError unless an image has the bands of its product."""
    if len(header.bands) != len(product.bands):
        raise UserError(
            f"{header.path} has {len(header.bands)} bands, but {product.name} has {len(product.bands)}; download it "
            "again",
            kind="wrong_data",
            key=header.path,
            value=len(header.bands),
        )
