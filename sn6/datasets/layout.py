"""Declare how SpaceNet 6 is laid out on disk: products, folders and file names.

Source: the published tarballs (CC BY-SA 4.0).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test_public"]

AOI = "AOI_11_Rotterdam"
CRS = "EPSG:32631"  # UTM zone 31 North, metres
PIXEL = 0.5  # metres; the grid of the labels and of every sample
NODATA = 0  # in every product
SPLIT_NAMES: dict[Split, str] = {"train": "Train", "test_public": "Test_Public"}


@dataclass(frozen=True)
class Product:
    """One kind of image.

    Attributes:
        bands: names in their order on disk
        dtype: of the pixels on disk
        pixel: pixel size in metres
        optical: whether it is an optical image; the public test set has none
    """

    bands: tuple[str, ...]
    dtype: str
    pixel: float
    optical: bool


PRODUCTS = {
    "SAR-Intensity": Product(("HH", "HV", "VH", "VV"), "float32", 0.5, optical=False),  # decibels
    "PS-RGB": Product(("R", "G", "B"), "uint8", 0.5, optical=True),
    "PS-RGBNIR": Product(("B", "G", "R", "NIR"), "uint16", 0.5, optical=True),  # not the order of its name
    "RGBNIR": Product(("B", "G", "R", "NIR"), "uint16", 1.0, optical=True),
    "PAN": Product(("PAN",), "uint16", 0.5, optical=True),
}


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
