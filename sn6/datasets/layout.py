"""How SpaceNet 6 lies on disk: products, folders and names, for whoever reads or writes an archive.

Source: the layout of the published tarballs (CC BY-SA 4.0).
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
        pixel: size on the ground in metres
        optical: whether it is an optical image, which the public test set has not
    """

    bands: tuple[str, ...]
    dtype: str
    pixel: float
    optical: bool


PRODUCTS = {
    "SAR-Intensity": Product(("HH", "HV", "VH", "VV"), "float32", 0.5, optical=False),  # decibels
    "PS-RGB": Product(("R", "G", "B"), "uint8", 0.5, optical=True),
    "PS-RGBNIR": Product(("B", "G", "R", "NIR"), "uint16", 0.5, optical=True),  # in spite of its name
    "RGBNIR": Product(("B", "G", "R", "NIR"), "uint16", 1.0, optical=True),
    "PAN": Product(("PAN",), "uint16", 0.5, optical=True),
}


def split_folder(root: Path, split: Split) -> Path:
    """`root/train/AOI_11_Rotterdam` or `root/test_public/AOI_11_Rotterdam`."""
    return root / split / AOI


def tile_path(root: Path, split: Split, product: str, image_id: str) -> Path:
    """The GeoTIFF of a product; `image_id` is the last four fields of its name."""
    return split_folder(root, split) / product / f"SN6_{SPLIT_NAMES[split]}_{AOI}_{product}_{image_id}.tif"


def geojson_path(root: Path, image_id: str) -> Path:
    """The footprints of a training tile in metres."""
    name = f"SN6_{SPLIT_NAMES['train']}_{AOI}_Buildings_{image_id}.geojson"
    return split_folder(root, "train") / "geojson_buildings" / name


def orientations_path(root: Path) -> Path:
    """One `strip flag` a line for the strips of train and test: 0 imaged from the north, 1 from the south."""
    return split_folder(root, "train") / "SummaryData" / "SAR_orientations.txt"


def labels_path(root: Path) -> Path:
    """The footprints and heights of all training tiles in pixels, one row a building."""
    return split_folder(root, "train") / "SummaryData" / f"SN6_Train_{AOI}_Buildings.csv"


def test_truth_path(root: Path) -> Path:
    """The footprints of the test tiles where they are known: beside the test set, in the form of `labels_path`.

    The published archive keeps its test labels secret; the simulated one writes them here.
    """
    return root / "test_public_truth" / f"SN6_Test_Public_{AOI}_Buildings.csv"
