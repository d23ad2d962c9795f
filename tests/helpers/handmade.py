"""An archive made by hand, with names and types written out from the description of the data set."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

SAR_STRIP = "20190822070610_20190822070846"
OTHER_STRIP = "20190804111224_20190804111453"
WEST, NORTH = 592736.5, 5747555.5
CSV_HEADER = (
    "ImageId,TileBuildingId,PolygonWKT_Pix,Mean_Building_Height,Median_Building_Height,StdDev_Building_Height\n"
)
DTYPES = {"SAR-Intensity": "float32", "PS-RGB": "uint8", "PS-RGBNIR": "uint16", "RGBNIR": "uint16", "PAN": "uint16"}


def folder(root: Path) -> Path:
    return root / "train" / "AOI_11_Rotterdam"


def write_tif(path: Path, pixels: np.ndarray, west=WEST, north=NORTH, pixel=0.5, crs="EPSG:32631") -> Path:
    """Bands (c, h, w) with nodata 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype, "nodata": 0}
    with rasterio.open(path, "w", crs=crs, transform=from_origin(west, north, pixel, pixel), **profile) as file:
        file.write(pixels)
    return path


def write_tile(root: Path, product: str, pixels: np.ndarray, number=1, strip=SAR_STRIP, **place) -> str:
    """One image of a training tile; returns its image id."""
    image_id = f"{strip}_tile_{number}"
    name = f"SN6_Train_AOI_11_Rotterdam_{product}_{image_id}.tif"
    write_tif(folder(root) / product / name, pixels.astype(DTYPES[product]), **place)
    return image_id


def write_labels(root: Path, rows: str) -> Path:
    """The labels' CSV from its rows."""
    path = folder(root) / "SummaryData" / "SN6_Train_AOI_11_Rotterdam_Buildings.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CSV_HEADER + rows)
    return path


def write_geojson(root: Path, image_id: str, text: str) -> Path:
    """The GeoJSON of a tile from its text."""
    path = folder(root) / "geojson_buildings" / f"SN6_Train_AOI_11_Rotterdam_Buildings_{image_id}.geojson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_orientations(root: Path, text=f"{SAR_STRIP} 1\n{OTHER_STRIP} 0\n") -> Path:
    path = folder(root) / "SummaryData" / "SAR_orientations.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def speckle(bands=4, size=64, seed=0) -> np.ndarray:
    """Decibels without nodata."""
    return np.random.default_rng(seed).uniform(5, 50, (bands, size, size)).astype(np.float32)
