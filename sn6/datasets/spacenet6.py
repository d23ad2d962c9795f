"""SpaceNet 6, published or simulated: Rotterdam by airborne radar and an optical satellite.

=============  =============  =======  ======  =====
product        bands on disk  dtype    pixels  pixel
=============  =============  =======  ======  =====
SAR-Intensity  HH HV VH VV    float32  900     0.5 m   decibels
PS-RGB         R G B          uint8    900     0.5 m
PS-RGBNIR      B G R NIR      uint16   900     0.5 m   not the order of its name
RGBNIR         B G R NIR      uint16   450     1 m
PAN            one            uint16   900     0.5 m
=============  =============  =======  ======  =====

Source: the published tarballs (CC BY-SA 4.0).
"""

import re
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sn6.datasets.declaration import Product, Split, Tile
from sn6.datasets.labels import load_labels
from sn6.datasets.packed_labels import PackedLabels
from sn6.datasets.tile_files import TileFiles
from sn6.errors import UserError
from sn6.footprints import Labels
from sn6.formats.geojson import read_geojson_labels
from sn6.formats.outlines import read_error

AOI = "AOI_11_Rotterdam"
CRS = "EPSG:32631"  # UTM zone 31 North, metres
PIXEL = 0.5  # metres; the grid of the labels and of every sample
NODATA = 0  # in every product
SPLIT_NAMES: dict[Split, str] = {"train": "Train", "test_public": "Test_Public"}
RADAR = "SAR-Intensity"
PRODUCTS = {
    product.name: product
    for product in (
        Product(RADAR, ("HH", "HV", "VH", "VV"), "float32", 0.5, "radar", NODATA, limit=128.0),
        # four channels by default, as the baseline reads them for SAR networks
        Product("PS-RGB", ("R", "G", "B"), "uint8", 0.5, "optical", NODATA, default_bands=(3, 1, 1, 2)),
        Product("PS-RGBNIR", ("B", "G", "R", "NIR"), "uint16", 0.5, "optical", NODATA, limit=2048.0),
        Product("RGBNIR", ("B", "G", "R", "NIR"), "uint16", 1.0, "optical", NODATA, repeat=2),
        Product("PAN", ("PAN",), "uint16", 0.5, "optical", NODATA),
    )
}
# The strip, then the number of the tile; no hidden file, such as the ._* of macOS.
IMAGE_ID = re.compile(r"^[^.].*_(\d{14}_\d{14})_(tile_\d+)\.tif$")


class SpaceNet6(TileFiles):
    """Read an archive in the layout of SpaceNet 6.

    Args:
        root: folder with `train/AOI_11_Rotterdam` and optionally `test_public/AOI_11_Rotterdam`

    Raises:
        UserError: `root` is not an archive
    """

    name = "SpaceNet 6"
    products = PRODUCTS
    crs = CRS
    pixel_size = PIXEL
    splits = tuple(SPLIT_NAMES)
    partition = "columns"
    label_format = f"pixels of {PIXEL} m from the tile's upper left corner (CSV), or in metres of {CRS} (GeoJSON)"

    def __init__(self, root: str | Path | None) -> None:
        if root is None:
            raise UserError(
                "data.root is not set; run on a simulated archive with `python -m sn6.run experiment=quickstart`, "
                "simulate one with `python -m sn6.simulate root=DIR`, or download the published one (see README.md)",
                kind="missing_value",
                key="data.root",
            )
        self.root = Path(root)
        if not self.folder_of("train").is_dir():
            raise UserError(
                f"{self.root} is not an archive: {self.folder_of('train')} is missing; give the folder that "
                f"contains train/{AOI}, or simulate an archive with `python -m sn6.simulate root=...`",
                kind="not_found",
                key=self.root,
            )

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    def folder_of(self, split: Split) -> Path:
        """Return the folder of a split."""
        return split_folder(self.root, split)

    def path_of(self, split: Split, product: str, image_id: str) -> Path:
        """Return the path of a GeoTIFF."""
        return tile_path(self.root, split, product, image_id)

    def products_of(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the names of the products of each tile by image id, from the file names only."""
        products: dict[str, list[str]] = {}
        for product in PRODUCTS:
            for path in (self.folder_of(split) / product).glob("*.tif"):
                if match := IMAGE_ID.search(path.name):
                    products.setdefault(f"{match[1]}_{match[2]}", []).append(product)
        return {image_id: tuple(names) for image_id, names in products.items()}

    def has_product(self, split: Split, product: str) -> bool:
        """Return whether any tile of the split has the product."""
        return any(IMAGE_ID.search(path.name) for path in (self.folder_of(split) / product).glob("*.tif"))

    def strip_of(self, image_id: str) -> str:
        """Return the pass of a tile."""
        return strip_of(image_id)

    def strips_of(self, split: Split) -> dict[str, int | None]:
        """Return the look direction of each strip of a split, from the names of its files."""
        return {strip: self.orientation_of(strip) for strip in map(self.strip_of, sorted(self.products_of(split)))}

    def origin(self, tile: Tile) -> str:
        """Return the time of the pass that imaged a tile."""
        day, start, end = tile.strip[:8], tile.strip[8:14], tile.strip[-6:]
        times = (":".join((time[:2], time[2:4], time[4:])) for time in (start, end))
        return f"strip {day[:4]}-{day[4:6]}-{day[6:]} {' to '.join(times)} UTC"

    def sensing_time(self, tile: Tile) -> str | None:
        """Return the start of the pass that imaged a tile, in ISO 8601."""
        return start_of_pass(tile.strip)

    def orientation_of(self, strip: str) -> int | None:
        """Return the look direction of a strip; None where the table lacks it."""
        return self.orientations.get(strip)

    @cached_property
    def orientations(self) -> dict[str, int]:
        """Return the look direction of each strip, 0 (north) or 1 (south); empty where there is no table."""
        path = orientations_path(self.root)
        if not path.exists():
            return {}
        table = {}
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise read_error(path, error) from None
        for number, line in enumerate(text.splitlines(), start=1):
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

    def missing_orientation(self, tile: Tile) -> UserError:
        """Return the error of a tile whose strip the table of look directions lacks."""
        table = orientations_path(self.root).name
        return UserError(
            f"{table} has no look direction for the strip {tile.strip} of tile {tile.image_id}; add the line "
            f"'{tile.strip} 0' (imaged from the north) or '{tile.strip} 1' (from the south), or set data.orient=false",
            kind="missing_value",
            key=table,
            value=tile.strip,
        )

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

    @property
    def command_keys(self) -> dict[str, Any]:
        """Return the keys by which other commands find its images."""
        return {"root": self.root}

    @property
    def label_tables(self) -> tuple[Path, ...]:
        """Return the paths of the tables of labels: of the training tiles, and of the test tiles."""
        return labels_path(self.root), test_truth_path(self.root)

    @property
    def has_test_labels(self) -> bool:
        """Return whether the labels of the test tiles are known: those of the published archive are secret."""
        return test_truth_path(self.root).exists()

    def input_files(self, product: str) -> dict[str, list[Path]]:
        """Return the files besides the images that a run depends on: labels, and look directions."""
        with_product = sorted(image_id for image_id, names in self.products_of("train").items() if product in names)
        geojson = [geojson_path(self.root, image_id) for image_id in with_product if image_id not in self._train_labels]
        return {
            "labels of train": [labels_path(self.root), *geojson],
            "labels of test_public": [test_truth_path(self.root)],
            "look directions": [orientations_path(self.root)],
        }

    @cached_property
    def _train_labels(self) -> PackedLabels:
        return load_labels(self.root, "train", labels_path(self.root))

    @cached_property
    def _test_labels(self) -> PackedLabels:
        return load_labels(self.root, "test_public", test_truth_path(self.root))


def strip_of(image_id: str) -> str:
    """Return the pass of a tile, its start and end in UTC: the first two fields of the image id."""
    return image_id.rpartition("_tile_")[0]


def start_of_pass(strip: str) -> str | None:
    """Return the start of a pass in ISO 8601, from its name; None where that is no time.

    >>> start_of_pass("20190822070610_20190822070846")
    '2019-08-22T07:06:10Z'
    """
    try:
        return f"{datetime.strptime(strip[:14], '%Y%m%d%H%M%S').isoformat()}Z"
    except ValueError:
        return None


def split_folder(root: Path, split: Split) -> Path:
    """Return `root/train/AOI_11_Rotterdam` or `root/test_public/AOI_11_Rotterdam`."""
    return root / split / AOI


def tile_path(root: Path, split: Split, product: str, image_id: str) -> Path:
    """Return the path of the GeoTIFF of a product; `image_id` is the last four fields of its name."""
    return split_folder(root, split) / product / f"SN6_{SPLIT_NAMES[split]}_{AOI}_{product}_{image_id}.tif"


def geojson_path(root: Path, image_id: str) -> Path:
    """Return the path of the footprints of a training tile in metres."""
    name = f"SN6_{SPLIT_NAMES['train']}_{AOI}_Buildings_{image_id}.geojson"
    return split_folder(root, "train") / "geojson_buildings" / name


def orientations_path(root: Path) -> Path:
    """Return the path of the look directions of the strips of both splits.

    Each line is `strip flag`: 0 for imaged from the north, 1 for imaged from the south.
    """
    return split_folder(root, "train") / "SummaryData" / "SAR_orientations.txt"


def labels_path(root: Path) -> Path:
    """Return the path of the footprints (pixels) and heights of all training tiles, one row per building."""
    return split_folder(root, "train") / "SummaryData" / f"SN6_Train_{AOI}_Buildings.csv"


def test_truth_path(root: Path) -> Path:
    """Return the path of the ground truth of the test tiles, a table like that of `labels_path`.

    The published archive keeps its test labels secret; the simulated one writes them here.
    """
    return root / "test_public_truth" / f"SN6_Test_Public_{AOI}_Buildings.csv"
