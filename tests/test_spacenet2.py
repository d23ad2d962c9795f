"""Read SpaceNet 2 from synthetic files with the published names, types and traps."""

import json
import pickle
import shutil

import numpy as np
import pytest
import rasterio
import shapely
from helpers.commands import read_metrics
from helpers.errors import user_error
from rasterio.transform import from_origin
from rasterio.warp import transform

from sn6.data.datamodule import TileDataModule
from sn6.data.folds import bounds_of, overlaps_any
from sn6.datasets.from_config import open_data_set
from sn6.datasets.spacenet2 import SpaceNet2

DEGREES = 2.7e-6  # of a pixel: 0.3 m from south to north, less from west to east
CITIES = {  # west, north of the first tile, and the UTM zone
    "AOI_2_Vegas": (-115.20, 36.20, "EPSG:32611"),
    "AOI_3_Paris": (2.30, 48.88, "EPSG:326" + "31"),
    "AOI_4_Shanghai": (121.45, 31.25, "EPSG:32651"),
    "AOI_5_Khartoum": (32.55, 15.60, "EPSG:32636"),
}
BANDS = {"RGB-PanSharpen": (3, 650), "MUL-PanSharpen": (8, 650), "PAN": (1, 650), "MUL": (8, 162)}
HOUSE = (100, 200, 160, 280)  # west, north, east, south in pixels of 650


def corner(city, number):
    """Return west and north of a tile in degrees: tiles in rows of three, side by side."""
    west, north, _ = CITIES[city]
    row, column = divmod(number - 1, 3)
    return west + column * 650 * DEGREES, north - row * 650 * DEGREES


def write_image(path, city, number, product):
    """Write an image with the number of its tile, a bright building, and no data beyond its west."""
    count, size = BANDS[product]
    pixel = 650 * DEGREES / size
    pixels = np.full((count, size, size), 100 + number, dtype=np.uint16)
    west, north, east, south = (round(edge * size / 650) for edge in HOUSE)
    pixels[:, north:south, west:east] = 1000
    pixels[:, : size // 10] = 0  # beyond the edge of the source image
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"driver": "GTiff", "count": count, "height": size, "width": size, "dtype": "uint16"}
    grid = from_origin(*corner(city, number), pixel, pixel)
    with rasterio.open(path, "w", crs="EPSG:4326", transform=grid, **options) as file:
        file.write(pixels)


def write_labels(path, city, number, edges=HOUSE):
    """Write a GeoJSON of WGS84 with one building whose vertices have a height, or with none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = []
    if edges is not None:
        west, north = corner(city, number)
        x, y = (
            [edges[i] * DEGREES + west for i in (0, 2, 2, 0, 0)],
            [north - edges[i] * DEGREES for i in (1, 1, 3, 3, 1)],
        )
        ring = [[*xy, 0.0] for xy in zip(x, y, strict=True)]
        features = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


@pytest.fixture(scope="module")
def cities(tmp_path_factory):
    """Two products of six tiles of each city, as the tarballs unpack them; the third tile has no building."""
    root = tmp_path_factory.mktemp("spacenet2")
    for city in CITIES:
        folder = root / f"SN2_buildings_train_{city}" / f"{city}_Train"
        for number in range(1, 7):
            for product in ("RGB-PanSharpen", "MUL"):
                write_image(folder / product / f"{product}_{city}_img{number}.tif", city, number, product)
            labels = folder / "geojson/buildings" / f"buildings_{city}_img{number}.geojson"
            write_labels(labels, city, number, None if number == 3 else HOUSE)
    test = root / "AOI_2_Vegas_Test_Public/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img7.tif"
    write_image(test, "AOI_2_Vegas", 7, "RGB-PanSharpen")
    write_image(root / "AOI_2_Vegas_Roads_Train/MUL/MUL_AOI_2_Vegas_img8.tif", "AOI_2_Vegas", 8, "MUL")
    return root


def test_the_training_tiles_of_all_cities_are_found(cities):
    data_set = SpaceNet2(str(cities))
    tiles = data_set.tiles("train", "RGB-PanSharpen")
    assert [tile.image_id for tile in tiles] == sorted(f"{city}_img{i}" for city in CITIES for i in range(1, 7))
    assert {tile.strip: tile.crs for tile in tiles} == {city: zone for city, (_, _, zone) in CITIES.items()}
    assert {tile.products for tile in tiles} == {("RGB-PanSharpen", "MUL")}
    only = SpaceNet2(str(cities / "SN2_buildings_train_AOI_3_Paris"))
    assert len(only.tiles("train", "MUL")) == 6
    assert data_set.tile("train", "AOI_5_Khartoum_img2") == tiles[-5]


@pytest.mark.parametrize("city", CITIES)
def test_a_tile_is_on_a_grid_of_30_cm_at_its_place(cities, city):
    data_set = SpaceNet2(str(cities))
    tile = data_set.tile("train", f"{city}_img2")
    west, _, east, north = tile.placed
    degrees = corner(city, 2)
    x, y = transform("EPSG:4326", tile.crs, [degrees[0], degrees[0] + 650 * DEGREES], [degrees[1]] * 2)
    assert (west, north) == pytest.approx((x[0], y[0]), abs=8)  # the box around a tile that is not north-up in UTM
    assert east == pytest.approx(x[1], abs=8)
    height, width = (round(size) for size in tile.size(0.3))
    image, valid = data_set.read(tile, "RGB-PanSharpen", (3, 1))
    assert image.shape == (2, height, width)
    assert image[:, ~valid].max() == 0
    assert valid.mean() == pytest.approx(0.9, abs=0.06)  # a tenth of the tile is 0 in every band
    ground = image[0][valid & (image[0] < 900)]
    assert np.median(ground) == 102


@pytest.mark.parametrize("product", ["RGB-PanSharpen", "MUL"])
@pytest.mark.parametrize("city", CITIES)
def test_buildings_are_where_the_image_shows_them(cities, city, product):
    """Within a pixel, and those of 1.2 m within two of their own."""
    data_set = SpaceNet2(str(cities))
    tile = data_set.tile("train", f"{city}_img4")
    image, _ = data_set.read(tile, product, (1,))
    (building,) = data_set.labels(tile).polygons
    rows, columns = np.nonzero(image[0] > 550)
    shown = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert building.bounds == pytest.approx(shown, abs=2 if product == "RGB-PanSharpen" else 8)
    west, north, east, south = HOUSE
    wide, high = 111_320 * np.cos(np.radians(CITIES[city][1])) * DEGREES, 0.3  # metres of a pixel on a sphere
    assert shapely.area(building) * 0.09 == pytest.approx((east - west) * wide * (south - north) * high, rel=0.01)


def test_an_empty_file_is_a_tile_without_buildings(cities):
    data_set = SpaceNet2(str(cities))
    tile = data_set.tile("train", "AOI_3_Paris_img3")
    assert data_set.has_labels(tile)
    assert len(data_set.labels(tile)) == 0


def test_a_tile_without_a_file_of_labels_is_unknown(cities, tmp_path):
    shutil.copytree(cities / "SN2_buildings_train_AOI_3_Paris", tmp_path / "a")
    (tmp_path / "a/AOI_3_Paris_Train/geojson/buildings/buildings_AOI_3_Paris_img1.geojson").unlink()
    data_set = SpaceNet2(str(tmp_path))
    tile = data_set.tile("train", "AOI_3_Paris_img1")
    assert not data_set.has_labels(tile)
    assert data_set.labels(tile) is None


def test_the_names_of_single_files_are_read_too(tmp_path):
    city = "AOI_4_Shanghai"
    image = tmp_path / city / "PS-RGB" / f"SN2_buildings_train_{city}_PS-RGB_img12.tif"
    write_image(image, city, 12, "RGB-PanSharpen")
    labels = tmp_path / city / "geojson_buildings" / f"SN2_buildings_train_{city}_geojson_buildings_img12.geojson"
    write_labels(labels, city, 12)
    data_set = SpaceNet2(str(tmp_path))
    (tile,) = data_set.tiles("train", "RGB-PanSharpen")
    assert tile.image_id == f"{city}_img12"
    assert len(data_set.labels(tile)) == 1


def test_it_is_sent_to_workers_without_what_it_has_read(cities):
    data_set = SpaceNet2(str(cities))
    tile = data_set.tile("train", "AOI_3_Paris_img1")
    data_set.labels(tile)
    copy = pickle.loads(pickle.dumps(data_set))
    assert set(vars(copy)) == {"root", "files"}
    assert copy.labels(tile).polygons[0].equals(data_set.labels(tile).polygons[0])


@pytest.mark.parametrize("fold", range(5))
def test_folds_divide_the_ground_of_all_zones(cities, fold):
    node = {"dataset": {"_target_": "sn6.datasets.spacenet2.SpaceNet2"}, "root": str(cities)}
    data = TileDataModule(open_data_set(node), product="MUL", partition="blocks", fold=fold, num_workers=0, crop=64)
    data.setup()
    train, validation = data.fold.train, data.fold.validation
    assert len(train) + len(validation) + len(data.fold.dropped) == 24
    assert not overlaps_any(bounds_of(train), bounds_of(validation)).any()
    assert len(data.statistics.mean) == 8
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 8, 64, 64)


def test_a_run_by_the_command_line(cities, sn6_run, tmp_path):
    """Of one city, whose footprints are in its zone."""
    city = "AOI_5_Khartoum"
    short = ("model.width=4", "model.depth=2", "data.crop=64", "data.num_workers=0", "trainer.max_epochs=1")
    quick = ("trainer.limit_train_batches=1", "callbacks.image_logging.tiles=0", "~callbacks.progress_bar")
    trainer = ("trainer.accelerator=cpu", "trainer.precision=32-true", "+trainer.enable_progress_bar=false")
    root = cities / f"SN2_buildings_train_{city}"
    done = sn6_run("data=spacenet2", f"data.root={root}", "model=unet", "name=it", *short, *quick, *trainer)
    assert done.status == 0, done.err
    metrics = read_metrics(tmp_path / "outputs/it")
    assert metrics["data"]["bands"] == [1, 2, 3]
    footprints = json.loads((tmp_path / "outputs/it/footprints.geojson").read_text())
    assert footprints["crs"]["properties"]["name"].replace("::", ":").endswith(CITIES[city][2])
    assert footprints["pixel_size"] == 0.3
    assert footprints["tiles"]
    for image_id, place in footprints["tiles"].items():
        west, north = corner(city, int(image_id[-1]))
        (x,), (y,) = transform("EPSG:4326", CITIES[city][2], [west], [north])
        assert place == pytest.approx((x, y), abs=8)


def test_wrong_input_is_one_line(cities, tmp_path):
    with user_error("missing_value", key="data.root"):
        SpaceNet2(None)
    with user_error("not_found"):
        SpaceNet2(str(tmp_path))
    with user_error("not_found", value="PAN"):
        SpaceNet2(str(cities)).tiles("train", "PAN")
    with user_error("not_found", value="AOI_2_Vegas_img7"):
        SpaceNet2(str(cities)).tile("train", "AOI_2_Vegas_img7")
    write_image(tmp_path / "AOI_3_Paris_Train/MUL/MUL_AOI_3_Paris_img1.tif", "AOI_3_Paris", 1, "RGB-PanSharpen")
    with user_error("wrong_data", value=3):
        SpaceNet2(str(tmp_path)).tiles("train", "MUL")
