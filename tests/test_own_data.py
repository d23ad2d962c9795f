"""Images and labels of one's own: docs/own-data.md as it is printed, and four worlds from the check to the score."""

import json
import re
import shlex
import signal
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from helpers.forked import python_m
from helpers.stopping import STOP, STOP_CALLBACK
from helpers.worlds import amplitude_world, decibel_world, optical_world, power_world, small_decibel_world

from sn6.data.reader import read_sample
from sn6.data.source import Source
from sn6.datasets.folder import Folder
from sn6.footprints.threshold import Threshold
from sn6.formats.geojson import GeoJSONWriter

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHORT = (
    *("scale=small", "model=unet", "model.width=4", "model.depth=2", "data.crop=64", "data.batch_size=4"),
    *("data.num_workers=0", "data.tile_size=256", "trainer.max_epochs=2", "trainer.limit_train_batches=3"),
    *("trainer.max_steps=-1", "trainer.accelerator=cpu", "callbacks.image_logging.tiles=1"),
)

LEARNS = (  # 20 s
    *("scale=small", "model=resunet", "data.crop=128", "data.num_workers=0", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=3", "trainer.max_steps=60", "trainer.limit_train_batches=20"),
)


def command(folder, *words, status=0, **environment):
    """Run `python -m words...` in a folder."""
    done = python_m(words, folder, **environment)
    assert done.status == status, done.err


@pytest.mark.slow
def test_the_six_commands_of_the_document(tmp_path):
    amplitude_world(tmp_path)
    lines = COMMANDS.splitlines()
    assert len(lines) == 6
    for line in lines:
        name, *words = shlex.split(line.removeprefix("python -m "))
        command(tmp_path, name, *words, *(LEARNS if name == "sn6.run" else ()))
    layer = geopandas.read_file(tmp_path / "map" / "footprints.geojson")
    assert layer.crs is not None
    assert len(layer) > 0
    assert list((tmp_path / "outputs" / "worst").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [amplitude_world, power_world, optical_world, decibel_world])
def test_a_world_from_the_check_to_the_score(make, tmp_path):
    """One command each, and nothing else: check, run, which is killed, resume, predict, score."""
    world = make(tmp_path)
    classes = ("heads=classes",) if "classes" in world.keys else ()
    run = ("sn6.run", *world.of_run(), *SHORT, *classes, STOP_CALLBACK, "name=mine")
    command(tmp_path, "sn6.check", *(key for key in world.of_command() if not key.startswith(("category", "classes"))))
    command(tmp_path, *run, status=-signal.SIGKILL, **{STOP: "SIGKILL mine 1 1"})
    assert not (tmp_path / "outputs/mine/metrics.json").exists()
    command(tmp_path, *run)
    metrics = json.loads((tmp_path / "outputs/mine/metrics.json").read_text(encoding="utf-8"))
    assert np.isfinite(metrics["test"]["f1"])
    if classes:
        assert set(metrics["test"]["classes"]) >= {"house", "shed", "hall"}
    aoi = ()
    if make is decibel_world:  # most of the large image is beyond the area with labels
        aoi = (f"aoi={tmp_path / 'done.gpkg'}",)
    command(tmp_path, "sn6.predict", "checkpoint=outputs/mine", f"images={world.keys['images']}", "out=map", *aoi)
    truth = tmp_path / "truth.gpkg"
    world.buildings.to_file(truth)
    command(tmp_path, "sn6.score", f"truth={truth}", "proposals=map/footprints.gpkg", "out=score.json")
    score = json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))
    assert score["overall"]["tp"] + score["overall"]["fn"] == len(world.buildings)


@pytest.mark.parametrize("make", [amplitude_world, power_world, optical_world, small_decibel_world])
def test_true_instances_come_out_within_a_pixel(make, tmp_path):
    """From labels in another CRS to pixels, instances, footprints, and a layer in the CRS of the images."""
    world = make(tmp_path)
    data_set = Folder(**world.arguments())
    tiles = data_set.tiles("train", "images")
    write_true_footprints(data_set, tiles, tmp_path / "true.geojson")
    shapes = np.asarray(geopandas.read_file(tmp_path / "true.geojson").to_crs(world.crs).geometry)
    tree, squares = shapely.STRtree(shapes), shapely.box(*np.array([tile.bounds for tile in tiles]).T)
    known = shapely.union_all(squares) if world.area is None else world.area
    whole = [one for one in world.buildings.geometry if known.contains(one) and shapely.contains(squares, one).any()]
    assert len(whole) > len(world.buildings) / 2
    for building in whole:
        (near,) = tree.query(building, predicate="intersects")
        assert shapely.hausdorff_distance(shapes[near].exterior, building.exterior) <= world.pixel_size


def write_true_footprints(data_set, tiles, path):
    """Write the footprints that the true mask of each tile gives, as predict writes its own."""
    (product,) = data_set.products.values()
    source = Source(product, tuple(product.numbers), orient=False, min_area=20.0)
    polygonizer = Threshold(threshold=0.5, min_area=0.0, simplify=0.0)
    with GeoJSONWriter(path, data_set.crs, data_set.pixel_size) as writer:
        for tile in tiles:
            sample = read_sample(data_set, tile, source)
            mask = (sample["instances"] > 0).astype(np.float32)
            footprints = polygonizer({"mask": mask}, sample["valid"][0], data_set.pixel_size)
            writer.write(tile.image_id, tile.corner, footprints)
