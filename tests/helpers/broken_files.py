"""Files of each kind that commands read, for tests that break them: an archive, images, layers, a run, footprints."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely

from helpers.commands import small_run
from helpers.networks import random_network, write_network
from helpers.stopping import run_and_stop
from helpers.worlds import write_image
from sn6.check import check
from sn6.checkpoints.folds_file import write_folds
from sn6.compare import compare
from sn6.footprints.threshold import Threshold
from sn6.predict import predict
from sn6.score import score
from sn6.show import show
from sn6.simulation.archive import make_archive, settings_of
from sn6.training.data_source import DataSource

CRS, WEST, NORTH, PIXEL = "EPSG:32632", 600_000.0, 5_700_000.0, 10.0
LAYERS = ("labels.gpkg", "labels.fgb", "labels.geojson", "labels.parquet", "labels.shp")
SCORED = ("proposals.csv", "proposals.geojson", "proposals.parquet")
RUN_FILES = ("config.yaml", "metrics.json", "test_tiles.csv", "checkpoints/last.ckpt", "weights.safetensors")


@dataclass(frozen=True)
class Files:
    """A folder with all of them; commands write to `out`, a folder that each of them gets empty.

    Attributes:
        folder: of the files
    """

    folder: Path

    @property
    def root(self) -> Path:
        """Return the folder of the archive."""
        return self.folder / "archive"

    @property
    def run(self) -> Path:
        """Return the folder of the finished run."""
        return self.folder / "outputs/it"

    @property
    def out(self) -> Path:
        """Return the folder that commands write to."""
        return self.folder / "out"

    def kinds(self) -> dict[Path, tuple[str, ...]]:
        """Return the commands that read each of the files that are broken."""
        train = self.root / "train/AOI_11_Rotterdam"
        tile = min((train / "SAR-Intensity").glob("*.tif"))
        table = next((train / "SummaryData").glob("*.csv"))
        kinds: dict[Path, tuple[str, ...]] = {
            tile: ("check", "show", "predict"),
            table: ("check", "labels", "truth"),
            train / "SummaryData/SAR_orientations.txt": ("check", "labels"),
            min((train / "geojson_buildings").glob("*.geojson")): ("geojson_labels",),
            self.folder / "images/a.tif": ("check_images", "predict_images"),
            self.folder / "weights.safetensors": ("predict", "initial_weights"),
            self.folder / "last.ckpt": ("predict_ckpt", "initial_ckpt"),
            self.run / "config.yaml": ("resume", "compare", "data_of_run"),
            self.run / "metrics.json": ("resume", "compare"),
            self.run / "test_tiles.csv": ("compare",),
            self.folder / "folds/operating_point.json": ("folds",),
            self.folder / "predicted/prediction.json": ("claim", "score_predicted"),
        }
        of_layers = ("labels_of_images", "score_layers", "score_truth")
        kinds |= {self.folder / name: tuple(f"{command}:{name}" for command in of_layers) for name in LAYERS}
        kinds |= {
            self.folder / f"labels.{suffix}": ("labels_of_images:labels.shp",) for suffix in ("dbf", "shx", "prj")
        }
        return kinds | {self.folder / name: (f"score:{name}",) for name in SCORED}

    def command(self, name: str) -> Callable[[], Any]:
        """Return a command, for an empty `out`."""
        shutil.rmtree(self.out, ignore_errors=True)
        name, _, argument = name.partition(":")
        return partial(getattr(self, name), *([argument] if argument else []))

    def check(self) -> None:
        from sn6.inspection.archive import inspect_archive
        from sn6.inspection.report import make_report

        make_report(inspect_archive(self.root, 1))  # all but the figures, which take seconds

    def show(self) -> None:
        show(DataSource(root=self.root), tiles=1, out=self.out)

    def predict(self, checkpoint: str = "weights.safetensors") -> None:
        predict(self.folder / checkpoint, self.out, root=self.root, split="train", device="cpu", tiles=self.first_tile)

    def predict_ckpt(self) -> None:
        self.predict("last.ckpt")

    def predict_images(self) -> None:
        images = str(self.folder / "images")
        predict(self.folder / "weights.safetensors", self.out, images=images, device="cpu", check_values=False)

    def check_images(self) -> None:
        check(DataSource(images=str(self.folder / "images")), workers=1, out=self.out)

    def initial_weights(self, name: str = "weights.safetensors") -> None:
        from sn6.checkpoints.initial_weights import MODEL_KEY, read_initial_weights
        from sn6.checkpoints.run_files import FINAL_WEIGHTS

        read_initial_weights(str(self.folder / name), MODEL_KEY, FINAL_WEIGHTS)

    def initial_ckpt(self) -> None:
        self.initial_weights("last.ckpt")

    def labels(self) -> None:
        from sn6.datasets.spacenet6 import SpaceNet6

        data_set = SpaceNet6(self.root)
        for tile in data_set.tiles("train", "SAR-Intensity"):
            data_set.labels(tile)

    def geojson_labels(self) -> None:
        from sn6.formats.geojson import read_geojson_labels

        path = min(self.root.rglob("*.geojson"))
        read_geojson_labels(path, (WEST, NORTH), "EPSG:32631", 0.5)

    def labels_of_images(self, name: str) -> None:
        from sn6.datasets.folder import Folder

        data_set = Folder(images=str(self.folder / "images"), labels=str(self.folder / name), height="height")
        for tile in data_set.tiles("train", "images"):
            data_set.labels(tile)

    def truth(self) -> None:
        score(self.root, self.folder / "proposals.csv", out=self.out / "score.json", resamples=10)

    def score(self, name: str) -> None:
        score(self.root, self.folder / name, out=self.out / "score.json", resamples=10)

    def score_layers(self, name: str) -> None:
        score(self.folder / name, self.folder / "labels.gpkg", out=self.out / "score.json", resamples=10)

    def score_truth(self, name: str) -> None:
        score(self.folder / "labels.gpkg", self.folder / name, out=self.out / "score.json", resamples=10)

    def score_predicted(self) -> None:
        score(self.root, self.folder / "predicted/proposals.csv", out=self.out / "score.json", resamples=10)

    def claim(self) -> None:
        from sn6.prediction.output_folder import claim_folder

        claim_folder(self.folder / "predicted", {"window": 64})

    def compare(self) -> None:
        compare([self.run, self.other_run], self.out)

    def resume(self) -> None:
        from sn6.training.longer import train_longer
        from sn6.training.resume import finished_metrics
        from sn6.training.saved_config import saved_config

        config = saved_config(self.other_run)
        train_longer(self.run, config)
        finished_metrics(self.run, config)

    def data_of_run(self) -> None:
        data_set = DataSource(run=self.run).open()
        data_set.tiles("train", "SAR-Intensity")

    def folds(self) -> None:
        predict(self.folder / "folds", self.out, root=self.root, device="cpu", tiles=self.first_tile)

    @property
    def other_run(self) -> Path:
        """Return the folder of a copy of the run, which stays as it is."""
        return self.folder / "other/it"

    @property
    def first_tile(self) -> str:
        """Return the image id of a tile."""
        path = min((self.root / "train/AOI_11_Rotterdam/SAR-Intensity").glob("*.tif"))
        return path.stem.partition("SAR-Intensity_")[2]


def make_files(folder: Path) -> Files:
    """Make all files; takes half a minute."""
    files = Files(folder)
    make_archive(files.root, settings_of(tiles=8, test_tiles=2, seed=1, size=64))
    overrides = [*small_run(), f"data.root={files.root}", "data.crop=32", "data.fold=2"]
    assert run_and_stop(overrides, folder) == 0, (folder / "log.txt").read_text()[-3000:]
    shutil.copytree(files.run, files.other_run)
    shutil.copy(files.run / "checkpoints/best.ckpt", folder / "last.ckpt")
    write_network(folder / "weights.safetensors", random_network())
    rng = np.random.default_rng(0)
    pixels = rng.normal(-10, 3, (4, 64, 64)).astype(np.float32)
    write_image(folder / "images/a.tif", pixels, CRS, WEST, NORTH, PIXEL, names=("HH", "HV", "VH", "VV"))
    write_layers(folder)
    formats = [Path(name).suffix[1:] for name in SCORED]
    predict(
        folder / "weights.safetensors",
        folder / "predicted",
        root=files.root,
        split="train",
        device="cpu",
        formats=formats,
        threshold=0.2,
    )
    for name in SCORED:
        shutil.copy(next((folder / "predicted").glob(f"*{Path(name).suffix}")), folder / name)
    shutil.copytree(files.run / "checkpoints", folder / "folds/fold-0/checkpoints")
    write_folds(folder / "folds", [folder / "folds/fold-0/checkpoints/best.ckpt"], Threshold().to_dict())
    return files


def write_layers(folder: Path) -> None:
    """Write the same buildings in each format of LAYERS."""
    corners = [(WEST + 40 * column, NORTH - 40 * row) for column in range(1, 15) for row in range(1, 15)]
    shapes = [shapely.box(west, north - 20, west + 30, north) for west, north in corners]
    shapes[0] = shapely.MultiPolygon([shapes[0], shapely.box(WEST, NORTH - 600, WEST + 30, NORTH - 570)])
    columns = {"height": np.arange(len(shapes)) / 10, "kind": ["house"] * len(shapes)}
    layer = geopandas.GeoDataFrame(columns, geometry=shapes, crs=CRS)
    for name in LAYERS:
        layer.to_parquet(folder / name) if name.endswith("parquet") else layer.to_file(folder / name)
