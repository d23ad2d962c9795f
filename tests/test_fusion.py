"""Images that overlap on the ground are fused: the mean of all looks, by hand on small arrays and from the command."""

import itertools
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from helpers.bright import bright_run
from helpers.commands import assert_fails, read_metrics, small_run, start, wait_for_end
from helpers.handmade import write_tif
from helpers.networks import METADATA, normalised, random_network, texture, write_network
from helpers.stopping import predict_and_stop
from scipy.special import expit

from sn6.checkpoints.weights_file import write_weights
from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.datasets.spacenet6 import SpaceNet6
from sn6.formats.challenge_csv import read_proposals
from sn6.heads import Heads
from sn6.metrics.matching import Counts, match_tile
from sn6.prediction import map_grid
from sn6.prediction.fused_map import FusedMaps
from sn6.prediction.fusion import Fusion, interpolate, look_weights, window_counts
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Layout
from sn6.prediction.mosaic import Mosaic
from sn6.targets.mask import Mask
from sn6.targets.offset import Offset

WEST, NORTH = 500000.0, 5700000.0
GRID = Grid("EPSG:32631", WEST, NORTH, 0.5, 40, 50)
NO_FILE = PlacedImage("it.tif", GRID, (1,), False, Units("db"), None)
MASK = Heads({"mask": Mask()})


def image_at(row, column, size=(40, 50), **more):
    """An image of pixels of 0.5 m whose corner is so many pixels below and right of (WEST, NORTH); it has no file."""
    corner = (WEST + 0.5 * column, NORTH - 0.5 * row)
    return Image("it", "it.tif", NO_FILE, (1,), *size, corner, 0.5, 0.5, "EPSG:32631", **more)


def stored(folder, image, outputs, rotated=False):
    """The outputs (k, h, w) of an image, given in the frame of its file, stored as the network saw them."""
    mosaic = Mosaic(folder, image.height, image.width, 1024, 256)
    seen = outputs[:, ::-1, ::-1] if rotated else outputs
    mosaic.write((slice(0, image.height), slice(0, image.width)), np.ascontiguousarray(seen, dtype=np.float32))
    return mosaic


def fused(tmp_path, images, outputs, fusion, heads=MASK):
    """Mean and number of looks over the whole map of some images."""
    layout = Layout(tuple(images))
    mosaics = [
        stored(tmp_path / str(i), image, one, image.rotated)
        for i, (image, one) in enumerate(zip(images, outputs, strict=True))
    ]
    maps = FusedMaps(tmp_path / "maps", layout)
    for block in layout.blocks:
        maps.write(block, mosaics.__getitem__, heads, fusion)
    (grid,) = layout.maps
    rows, columns = np.mgrid[: grid.height, : grid.width]
    points = np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5
    mean = maps.read(0, slice(0, grid.height), slice(0, grid.width), heads.channels)
    return mean, maps.looks_at(0, points).reshape(grid.height, grid.width), layout


def plain_mean(shape, places, outputs):
    """The mean of images placed at whole pixels on an empty map, and their number, by plain loops."""
    total, count = np.zeros(shape), np.zeros(shape, dtype=int)
    for (row, column), values in zip(places, outputs, strict=True):
        for y, x in np.ndindex(values.shape):
            if not np.isnan(values[y, x]):
                total[row + y, column + x] += float(values[y, x])
                count[row + y, column + x] += 1
    with np.errstate(invalid="ignore"):
        return total / count, count


def random_outputs(rng, size=(40, 50), nodata=0.1):
    values = rng.normal(size=(1, *size)).astype(np.float32)
    values[:, rng.random(size) < nodata] = np.nan
    return values


@pytest.mark.parametrize("block", [16, 1024])
def test_images_at_whole_pixels_give_the_exact_mean(tmp_path, monkeypatch, block):
    monkeypatch.setattr(map_grid, "BLOCK", block)
    monkeypatch.setattr("sn6.prediction.fused_map.BLOCK", block)
    rng = np.random.default_rng(0)
    places = [(3, 0), (0, 7), (20, 31)]
    images = [image_at(*place) for place in places]
    outputs = [random_outputs(rng) for _ in images]
    mean, looks, layout = fused(tmp_path, images, outputs, Fusion(0.0, balance=False))
    expected, count = plain_mean(mean.shape[1:], places, [one[0] for one in outputs])
    assert layout.maps[0].corner == (WEST, NORTH)
    np.testing.assert_array_equal(looks, count)
    np.testing.assert_array_equal(mean[0], expected.astype(np.float32))
    assert count.max() == 3


@pytest.mark.parametrize("fusion", [Fusion(0.0, False), Fusion(6.0, True), Fusion(16.0, False)])
def test_identical_copies_change_nothing(tmp_path, fusion):
    rng = np.random.default_rng(1)
    outputs = random_outputs(rng)
    images = [image_at(0, 0, from_south=bool(i % 2)) for i in range(5)]
    mean, looks, _ = fused(tmp_path, images, [outputs] * 5, fusion)
    np.testing.assert_array_equal(mean, outputs)
    np.testing.assert_array_equal(looks, np.where(np.isnan(outputs[0]), 0, 5))


def test_outputs_of_a_rotated_image_are_rotated_back(tmp_path):
    heads = Heads({"mask": Mask(), "offset": Offset()})
    rng = np.random.default_rng(2)
    north = rng.normal(size=(3, 40, 50)).astype(np.float32)
    images = [image_at(0, 0), image_at(0, 0, rotated=True, from_south=True)]
    turned = north.copy()
    turned[1:] *= -1  # the vectors that a network sees that looks at the rotated image
    mean, _, _ = fused(tmp_path, images, [north, turned], Fusion(0.0, True), heads)
    np.testing.assert_array_equal(mean, north)


@pytest.mark.parametrize(("down", "right"), [(0.25, 0.0), (0.0, 0.5), (0.7, 0.4)])
def test_a_plane_is_moved_by_fractions_of_a_pixel_exactly(tmp_path, down, right):
    rows, columns = np.mgrid[:40, :50]
    first, second = image_at(0, 0), image_at(4 + down, 9 + right)
    plane = (0.5 * rows - 0.25 * columns)[None]
    of_second = (0.5 * (rows + 4 + down) - 0.25 * (columns + 9 + right))[None]
    mean, looks, layout = fused(tmp_path, [first, second], [plane, of_second], Fusion(0.0, False))
    rows, columns = np.mgrid[: mean.shape[1], : mean.shape[2]]
    seen = looks > 0
    np.testing.assert_allclose(mean[0][seen], (0.5 * rows - 0.25 * columns)[seen], atol=1e-4)
    assert (looks == 2).sum() == (36 - (down > 0)) * (41 - (right > 0))
    place = layout.place(1)
    assert (place.row, place.column) == pytest.approx((4 + down, 9 + right))


def test_sides_count_equally_where_they_are_balanced(tmp_path):
    shape = (1, 40, 50)
    images = [image_at(0, 0), image_at(0, 0), image_at(0, 0), image_at(0, 0, from_south=True)]
    outputs = [np.full(shape, value) for value in (1.0, 2.0, 3.0, 10.0)]
    assert (fused(tmp_path / "a", images, outputs, Fusion(0.0, True))[0] == 6).all()
    assert (fused(tmp_path / "b", images, outputs, Fusion(0.0, False))[0] == 4).all()


def test_one_side_alone_is_its_own_mean(tmp_path):
    images = [image_at(0, 0), image_at(0, 30, from_south=True)]
    outputs = [np.full((1, 40, 50), 1.0), np.full((1, 40, 50), 5.0)]
    mean, looks, _ = fused(tmp_path, images, outputs, Fusion(0.0, True))
    assert (mean[0][:, :30] == 1).all()
    assert (mean[0][:, 50:] == 5).all()
    assert (mean[0][:, 30:50] == 3).all()
    assert (looks[:, 30:50] == 2).all()


def test_no_step_where_a_look_fades_out(tmp_path):
    images = [image_at(0, 0, (60, 100)), image_at(0, 50, (60, 100), from_south=True)]
    outputs = [np.zeros((1, 60, 100)), np.ones((1, 60, 100))]
    for balance in (True, False):
        mean, _, _ = fused(tmp_path / str(balance), images, outputs, Fusion(8.0, balance))
        middle = mean[0, 30]
        assert middle[0] == 0
        assert middle[-1] == 1
        assert (np.diff(middle) >= 0).all()
        assert np.diff(middle).max() < 0.12
    hard, _, _ = fused(tmp_path / "hard", images, outputs, Fusion(0.0, True))
    assert np.diff(hard[0, 30]).max() == 0.5


@pytest.mark.parametrize("reach", [1, 2, 6])
def test_weights_are_those_of_the_square_around_each_pixel(reach):
    valid = np.random.default_rng(reach).random((17, 23)) < 0.9
    padded, side = np.pad(valid, reach), 2 * reach + 1
    share = np.array([[padded[r : r + side, c : c + side].mean() for c in range(23)] for r in range(17)])
    expected = np.where(valid, np.clip(2 * share - 1, 1e-3, 1), 0)
    np.testing.assert_allclose(look_weights(valid, reach), expected, atol=1e-6)


def test_no_fade_gives_every_valid_pixel_the_same_weight():
    valid = np.random.default_rng(0).random((9, 9)) < 0.5
    np.testing.assert_array_equal(look_weights(valid, 0), valid.astype(np.float32))


def test_nodata_spreads_to_the_pixels_that_are_made_from_it():
    values = np.ones((1, 4, 5), dtype=np.float32)
    values[0, 2, 3] = np.nan
    moved = interpolate(values, 0.5, 0.25)
    assert np.argwhere(np.isnan(moved[0])).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_images_that_are_not_on_a_common_map(tmp_path):
    """Another CRS, another pixel size, no CRS, and no overlap."""
    one = image_at(0, 0)
    apart = image_at(0, 50)  # shares an edge
    other_crs, no_crs = (replace(one, crs=crs) for crs in ("EPSG:32632", None))
    coarse = replace(one, pixel=1.0, pixel_metres=1.0)
    layout = Layout((one, apart, other_crs, no_crs, coarse))
    assert layout.maps == []
    assert layout.blocks == []
    assert all(layout.place(number) is None and not layout.blocks_of(number) for number in range(5))
    assert len(Layout((one, apart, image_at(0, 49))).maps) == 1


# From the command


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors", network)


@pytest.fixture
def sn6_predict(sn6_command, weights):
    common = (f"checkpoint={weights}", "formats=[csv,geojson,parquet]", "device=cpu")
    return lambda *overrides: sn6_command("predict", *common, *overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images of 192 × 192 pixels that overlap, each with its own noise and some nodata, and one elsewhere."""
    path = tmp_path_factory.mktemp("images")
    ground, rng = texture(16, 20), np.random.default_rng(0)
    pixels = {}
    for name, row, column in (("a", 0, 0), ("b", 32, 64), ("c", 96, 17)):
        pixels[name] = ground[:, row : row + 192, column : column + 192] + rng.uniform(0, 9, (4, 192, 192)).astype("f4")
        pixels[name][:, 20:40, 150:] = 0
        write_tif(path / f"{name}.tif", pixels[name], WEST + 0.5 * column, NORTH - 0.5 * row)
    write_tif(path / "far.tif", texture(8, 24), WEST + 5000, NORTH)
    return path, pixels


def logits_of(network, pixels):
    with torch.inference_mode():
        logits = network(normalised(pixels))[0, 0].numpy()
    return np.where((pixels != 0).any(axis=0), logits, np.nan)


def test_the_probability_is_that_of_the_mean_logit_on_the_own_valid_pixels(sn6_predict, network, folder, tmp_path):
    path, pixels = folder
    options = ("revisits=true", "fade=0", "balance=false", "probability=true")
    done = sn6_predict(f"images={path}", *options, f"out={tmp_path}/out")
    assert done.status == 0, done.err
    places = {"a": (0, 0), "b": (32, 64), "c": (96, 17)}
    mean, _ = plain_mean((288, 256), places.values(), [logits_of(network, pixels[name]) for name in places])
    for name, (row, column) in places.items():
        with rasterio.open(tmp_path / f"out/probability/{name}.tif") as raster:
            assert raster.transform * (0, 0) == (WEST + 0.5 * column, NORTH - 0.5 * row)
            probability = raster.read(1, masked=True) / 254
        valid = (pixels[name] != 0).any(axis=0)
        np.testing.assert_array_equal(~np.ma.getmaskarray(probability), valid)
        expected = expit(mean[row : row + 192, column : column + 192])
        assert np.abs(probability.data - expected)[valid].max() <= 0.5 / 254 + 1e-4
    alone = sn6_predict(f"images={path}/far.tif", f"out={tmp_path}/far")
    assert alone.status == 0
    far = [read_proposals(out / "proposals.csv")["far"].polygons for out in (tmp_path / "out", tmp_path / "far")]
    assert len(far[0]) > 0
    assert shapely.equals(*map(shapely.multipolygons, far))


def test_one_map_has_one_footprint_per_building_with_its_number_of_looks(sn6_predict, folder, tmp_path):
    path, pixels = folder
    done = sn6_predict(
        f"images={path}", "revisits=true", "merge=true", "fade=0", "threshold=0.7", f"out={tmp_path}/out"
    )
    assert done.status == 0, done.err
    merged = geopandas.read_parquet(tmp_path / "out/merged.parquet")
    assert len(merged) == len(geopandas.read_file(tmp_path / "out/merged.geojson")) > 3
    pairs = merged.sindex.query(merged.geometry, predicate="overlaps")
    assert not len(pairs[0])  # of overlapping footprints
    with rasterio.open(tmp_path / "out/looks.tif") as raster:
        looks, transform = raster.read(1), raster.transform
        assert raster.crs.to_epsg() == 32631
    expected = np.zeros((288, 256), dtype=int)
    for name, (row, column) in {"a": (0, 0), "b": (32, 64), "c": (96, 17)}.items():
        expected[row : row + 192, column : column + 192] += (pixels[name] != 0).any(axis=0)
    np.testing.assert_array_equal(looks[:288, :256], expected)
    on_map = merged[merged.image_id != "far"]
    inside = on_map.geometry.representative_point()
    columns, rows = ~transform * (inside.x.to_numpy(), inside.y.to_numpy())
    assert on_map.looks.tolist() == looks[np.floor(rows).astype(int), np.floor(columns).astype(int)].tolist()
    assert set(on_map.looks) >= {1, 2, 3}
    assert set(merged[merged.image_id == "far"].looks) == {1}
    each = geopandas.read_parquet(tmp_path / "out/footprints.parquet")
    assert set(each.columns) >= {"looks"}
    assert each.looks.min() >= 1


@pytest.fixture(scope="module")
def strip(tmp_path_factory):
    """Three images whose map has two blocks, one of them moved by half a pixel."""
    path, ground = tmp_path_factory.mktemp("strip"), texture(64, 24)[:, :96]
    for name, column in (("a", 0), ("b", 450), ("c", 900)):
        place = WEST + 0.5 * column + (0.25 if name == "b" else 0), NORTH - 0.5 * column % 7
        write_tif(path / f"{name}.tif", ground[:, :, column : column + 600].copy(), *place)
    return path


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(sn6_predict, strip, tmp_path):
    options = (f"images={strip}", "revisits=true", "merge=true", "window=96", "overlap=32", "probability=true")
    names = ("proposals.csv", "footprints.geojson", "merged.geojson", "footprints.parquet", "merged.parquet")
    written = {}
    for processes in (1, 2, 3):
        out = tmp_path / str(processes)
        done = sn6_predict(*options, f"out={out}", f"processes={processes}")
        assert done.status == 0, done.err
        rasters = sorted((out / "probability").glob("*.tif"))
        written[processes] = [(out / name).read_bytes() for name in names] + [file.read_bytes() for file in rasters]
        assert len(rasters) == 4  # with that of the map
    assert written[1] == written[2] == written[3]


def test_images_from_both_sides_are_fused_each_in_its_own_rotation(sn6_predict, network, folder, tmp_path):
    path, pixels = folder
    options = ("revisits=true", "fade=0", "probability=true", "rotate=[b]", f"out={tmp_path}/out")
    done = sn6_predict(f"images=[{path}/a.tif,{path}/b.tif]", *options)
    assert done.status == 0, done.err
    turned = logits_of(network, pixels["b"][:, ::-1, ::-1].copy())[::-1, ::-1]
    mean, _ = plain_mean((224, 256), [(0, 0), (32, 64)], [logits_of(network, pixels["a"]), turned])
    with rasterio.open(tmp_path / "out/probability/b.tif") as raster:
        probability = raster.read(1, masked=True) / 254
    valid = (pixels["b"] != 0).any(axis=0)
    assert np.abs(probability.data - expit(mean[32:, 64:]))[valid].max() <= 0.5 / 254 + 1e-4
    assert_fails(sn6_predict(f"images={path}", "rotate=[z*]", f"out={tmp_path}/z"), "not_found", "rotate", "z*")


def test_images_that_do_not_overlap_are_predicted_as_without(sn6_predict, folder, tmp_path):
    files = f"images=[{folder[0]}/a.tif,{folder[0]}/far.tif]"
    fused = sn6_predict(files, "revisits=true", f"out={tmp_path}/fused")
    plain = sn6_predict(files, f"out={tmp_path}/plain")
    assert fused.status == plain.status == 0, fused.err
    assert "revisits" in fused.err
    assert "revisits" not in plain.err
    written = [(tmp_path / name / "footprints.geojson").read_bytes() for name in ("fused", "plain")]
    assert written[0] == written[1]


@pytest.mark.parametrize("value", ["-1", "inf"])
def test_a_fade_that_is_no_distance_is_refused(sn6_predict, folder, tmp_path, value):
    assert_fails(sn6_predict(f"images={folder[0]}", f"fade={value}", f"out={tmp_path}/out"), "invalid_value", "fade")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_stopped_prediction_resumes_to_the_same_bytes(sn6_predict, weights, strip, tmp_path):
    options = (f"images={strip}", "revisits=true", "merge=true", "window=224", "overlap=64")
    assert sn6_predict(*options, f"out={tmp_path}/never").status == 0
    stopped = [
        f"checkpoint={weights}",
        "formats=[csv,geojson,parquet]",
        *options,
        f"out={tmp_path}/twice",
        "device=cpu",
    ]
    for steps, status in ((4, -9), (6, -9), (2, -9), (999, 0)):
        assert predict_and_stop(stopped, steps) == status
    for name in ("proposals.csv", "footprints.geojson", "merged.geojson", "merged.parquet", "looks.tif"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()
    assert not (tmp_path / "twice/unfinished").exists()


def test_tiles_that_the_network_was_trained_on_are_not_fused_with_others(sn6_command, network, archive_root, tmp_path):
    archive = SpaceNet6(archive_root)
    tiles = archive.tiles("train", "SAR-Intensity")
    trained, one, other = next(
        (a, b, c)
        for a, b, c in itertools.permutations(tiles, 3)
        if shared(a, b) > 0 and shared(b, c) > 0 and shared(a, c) == 0
    )
    path = tmp_path / "weights.safetensors"
    write_weights(path, network.state_dict(), METADATA | {"training_area": [list(trained.bounds)]})
    predict = (
        "predict",
        f"checkpoint={path}",
        f"root={archive_root}",
        "split=train",
        "check_values=false",
        "device=cpu",
    )
    both = f"tiles=[{one.image_id},{other.image_id}]"
    done = sn6_command(*predict, both, "revisits=true", f"out={tmp_path}/out")
    assert_fails(done, "leakage", "revisits", other.image_id)
    assert not (tmp_path / "out").exists()
    assert sn6_command(*predict, both, f"out={tmp_path}/apart").status == 0
    test = sn6_command(*predict[:3], "check_values=false", "device=cpu", "revisits=true", f"out={tmp_path}/test")
    assert test.status == 0, test.err


def shared(one, other):
    return shapely.area(shapely.intersection(shapely.box(*one.bounds), shapely.box(*other.bounds)))


def test_a_run_scores_its_test_tiles_with_all_looks(sn6_run, sn6_command, archive_root, tmp_path):
    options = [line for line in small_run(model="unet") if not line.startswith("trainer.limit_test")]
    more = ["polygons.threshold=0.3", "polygons.min_area=4", "callbacks.calibration=null", f"data.root={archive_root}"]
    done = sn6_run(*options, *more, "test.revisits=true", "test.fade=4")
    assert done.status == 0, done.err
    run = tmp_path / "outputs/it"
    scores = read_metrics(run)["test"]["revisits"]
    fused = ("revisits=true", "fade=4", f"root={archive_root}", "device=cpu")
    assert sn6_command("predict", f"checkpoint={run}", *fused, f"out={tmp_path}/out").status == 0
    for name in ("proposals.csv", "footprints.geojson"):
        assert (run / "revisits" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert (run / "proposals.csv").read_bytes() != (tmp_path / "out/proposals.csv").read_bytes()
    archive, total = SpaceNet6(archive_root), Counts()
    tiles = archive.tiles("test_public", "SAR-Intensity")
    for tile in tiles:
        proposals = read_proposals(tmp_path / "out/proposals.csv")[tile.image_id]
        total += match_tile(archive.labels(tile).polygons, proposals.polygons, proposals.confidences).counts
    assert (scores["tp"], scores["fp"], scores["fn"]) == (total.tp, total.fp, total.fn)
    assert scores["touching_fn"] + scores["alone_fn"] == scores["fn"]
    area = sum(shared(one, other) for one in tiles for other in tiles) / shared(tiles[0], tiles[0])
    assert scores["looks"] == pytest.approx(area / len(tiles))
    assert not (run / "revisits/unfinished").exists()


@pytest.mark.slow
def test_two_ranks_and_one_fuse_the_test_tiles_alike(bright_root, tmp_path):
    """The network is of no package of sn6, so its class has to be allowed too."""
    written = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        overrides = [*bright_run(bright_root, tmp_path), "test.revisits=true", f"trainer.devices={ranks}"]
        status, err = wait_for_end(start(folder, overrides))
        assert status == 0, err
        run = folder / "outputs/it"
        written[ranks] = read_metrics(run)["test"]["revisits"], (run / "revisits/proposals.csv").read_bytes()
    assert written[1] == written[2]
    assert written[1][0]["tp"] > 0
    assert written[1][0]["looks"] > 1


@pytest.mark.parametrize("reach", [0, 1, 2, 5, 12, 130])
def test_valid_pixels_of_the_window_are_counted_in_each_column(reach):
    valid = np.random.default_rng(0).random((20, 7)) > 0.3
    expected = [valid[max(row - reach, 0) : row + reach + 1].sum(axis=0) for row in range(20)]
    np.testing.assert_array_equal(window_counts(valid, reach), expected)
