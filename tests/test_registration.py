"""Images that are misplaced on the ground are moved onto each other before they are fused."""

import csv
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from helpers.commands import assert_fails
from helpers.handmade import write_tif
from helpers.networks import random_network, texture, write_network
from helpers.stopping import predict_and_stop
from scipy.ndimage import gaussian_filter

from sn6.data.ground import Ground
from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.errors import UserError
from sn6.heads import Heads
from sn6.prediction.fused_map import FusedMaps
from sn6.prediction.fused_sides import check_sides
from sn6.prediction.fusion import Fusion
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Layout
from sn6.prediction.mosaic import Mosaic
from sn6.prediction.registration import (
    Displacement,
    Measurement,
    compared_part,
    estimate_displacement,
    refine_shifts,
)
from sn6.prediction.registration_round import registration_rounds
from sn6.targets.mask import Mask

WEST, NORTH = 500000.0, 5700000.0
NO_FILE = PlacedImage("it.tif", Grid("EPSG:32631", WEST, NORTH, 0.5, 40, 50), (1,), False, Units("db"), None)
MASK = Heads({"mask": Mask()})
FINE = 8  # samples of the scene in a pixel of 0.5 m


@pytest.fixture(scope="module")
def scene():
    """220 m × 220 m with 70 rectangles, in samples of 1/16 m."""
    rng, ground = np.random.default_rng(0), np.zeros((440 * FINE, 440 * FINE), dtype=np.float32)
    for _ in range(70):
        (row, column), (height, width) = rng.integers(0, 420 * FINE, 2), rng.integers(12 * FINE, 40 * FINE, 2)
        ground[row : row + height, column : column + width] = 1
    return ground


def seen(scene, rng, row, column, size=(320, 320), noise=0.1):
    """Probability (h, w) of an image whose corner is so many pixels below and right of the corner of the scene."""
    top, left = round(row * FINE), round(column * FINE)
    part = scene[top : top + size[0] * FINE, left : left + size[1] * FINE]
    pixels = part.reshape(size[0], FINE, size[1], FINE).mean(axis=(1, 3))
    speckle = gaussian_filter(rng.normal(size=size), 2) * noise * 7  # of standard deviation `noise`
    return np.clip(0.1 + 0.7 * gaussian_filter(pixels, 1.5) + speckle, 0.01, 0.99).astype(np.float32)


def noise_alone(rng, size=(320, 320)):
    return np.clip(0.1 + gaussian_filter(rng.normal(size=size), 2) * 0.7, 0.01, 0.99).astype(np.float32)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -2), (0.5, 4.25), (-2.375, 1.125), (5.5, -5.5)])
def test_displacements_of_fractions_of_a_pixel(scene, down, right):
    """The maps have noise and nodata of their own; the image shows the ground `down`, `right` of where it says."""
    rng = np.random.default_rng(1)
    own, others = seen(scene, rng, 40 + down, 40 + right), seen(scene, rng, 40, 40)
    own[np.add.outer(np.arange(320), np.arange(320)) < 150] = np.nan
    others[:, 290:] = np.nan
    found = estimate_displacement(own, others, 0.5)
    assert (found.east, found.north) == pytest.approx((0.5 * right, -0.5 * down), abs=0.15)
    assert 0.5 < found.score < 1


def test_equal_maps_have_no_displacement(scene):
    own = seen(scene, np.random.default_rng(2), 10, 10)
    assert estimate_displacement(own, own, 0.5) == (0, 0, 1)


def test_maps_that_cannot_be_compared(scene):
    rng = np.random.default_rng(3)
    own, others = seen(scene, rng, 40, 40), seen(scene, rng, 40, 40)
    narrow = np.where(np.arange(320) < 30, others, np.nan).astype(np.float32)
    constant = np.full_like(own, 0.2)
    far = seen(scene, rng, 40, 54)  # 7 m
    for pair in ((own, narrow), (own, constant), (constant, constant), (own, far), (noise_alone(rng), others)):
        assert estimate_displacement(*pair, 0.5) is None
    assert all(estimate_displacement(noise_alone(rng), noise_alone(rng), 0.5) is None for _ in range(20))


def measured(truth, shared):
    """Exact measurements of misplaced images: the mean displacement to those that cover them."""
    for number, others in enumerate(shared):
        mean = sum(np.array(truth[one]) * pixels for one, pixels in others.items()) / sum(others.values())
        yield Measurement(Displacement(*(mean - truth[number]), 0.9), others)


def test_shifts_follow_from_exact_displacements_up_to_their_mean():
    """A chain of four images, in which the ends see only their neighbour, and a pair elsewhere."""
    truth = np.array([(2.0, -1.0), (-1.5, 0.5), (0.5, 1.5), (-0.5, 0.5), (1.75, 0.0), (-1.0, 0.25)])
    shared = [{1: 50}, {0: 50, 2: 25}, {1: 25, 3: 10}, {2: 10}, {5: 99}, {4: 98}]
    shifts = refine_shifts(np.zeros((6, 2)), [*measured(truth, shared)])
    for group in (slice(0, 4), slice(4, 6)):
        np.testing.assert_allclose(shifts[group], truth[group].mean(axis=0) - truth[group], atol=0.08)
    again = refine_shifts(shifts, [*measured(truth + shifts, shared)])
    np.testing.assert_allclose(again, shifts, atol=0.08)


def test_errors_do_not_add_up_along_a_strip():
    """40 places with two images each, which neighbouring places share hardly any ground with."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (80, 2))
    shared = [
        {number ^ 1: 1000} | {other: 4 for other in (number - 2, number + 2) if 0 <= other < 80} for number in range(80)
    ]
    noisy = [
        one._replace(displacement=Displacement(*(one.displacement[:2] + rng.normal(0, 0.2, 2)), 0.9))
        for one in measured(truth, shared)
    ]
    shifts = refine_shifts(np.zeros((80, 2)), noisy)
    between = (shifts + truth)[::2] - (shifts + truth)[1::2]
    assert np.sqrt((between**2).mean()) < 0.3
    assert np.abs(shifts).max() < 1.6


def test_images_without_a_reliable_displacement_do_not_move_others():
    truth = np.array([(1.0, 0.0), (-1.0, 0.0), (0.0, 0.0), (5.5, 0.0)])
    measurements = [*measured(truth, [{1: 9, 2: 9}, {0: 9, 2: 9}, {0: 9, 1: 9}, {2: 1}])]
    unknown = refine_shifts(np.zeros((5, 2)), [*measurements[:3], Measurement(None, {0: 9}), None])
    np.testing.assert_allclose(unknown[:3], -truth[:3], atol=0.08)
    assert np.isnan(unknown[3:]).all()
    too_far = refine_shifts(np.zeros((4, 2)), measurements)  # 5.5 m from the others
    np.testing.assert_allclose(too_far[:3], -truth[:3], atol=0.08)
    assert np.isnan(too_far[3]).all()
    assert np.isnan(refine_shifts(np.zeros((2, 2)), [None, None])).all()


def image_at(row, column, size=(320, 320), **more):
    """An image whose file says that its corner is so many pixels of 0.5 m below and right of (WEST, NORTH)."""
    corner = (WEST + 0.5 * column, NORTH - 0.5 * row)
    return Image("it", "it.tif", NO_FILE, (1,), *size, corner, 0.5, 0.5, "EPSG:32631", **more)


def registered(folder, images, probabilities, rounds=2):
    """The rounds of registration of images, given their probability, all done; and the files of their outputs."""
    mosaics = []
    for number, (image, probability) in enumerate(zip(images, probabilities, strict=True)):
        mosaic = Mosaic(folder / f"outputs{number}", image.height, image.width, 1024, 256)
        logits = np.log(probability / (1 - probability))[None]
        mosaic.write(
            (slice(0, image.height), slice(0, image.width)), logits[:, ::-1, ::-1] if image.rotated else logits
        )
        mosaics.append(mosaic)
    layout = Layout(tuple(images), ((0.0, 0.0),) * len(images))
    done = registration_rounds(folder, layout, rounds)
    for one in done:
        for block in layout.blocks:
            one.average(block, mosaics.__getitem__, MASK)
        for number in layout.placed:
            one.measure(number, mosaics[number], MASK)
        one.solve()
    return done, mosaics


def test_images_are_moved_to_the_mean_of_all(tmp_path, scene):
    """Eight images at fractions of pixels, two of them rotated, each misplaced; one without buildings, one 10 m off."""
    rng = np.random.default_rng(4)
    corners = [(0, 0), (64, 40), (20, 100), (90, 90), (40, 8), (77, 33), (5.5, 61.25), (50, 50)]
    errors = rng.uniform(-4, 4, (8, 2)).round(1)  # pixels, down and right
    errors -= errors.mean(axis=0)
    images = [
        image_at(*(corner + error), rotated=i > 5)
        for i, (corner, error) in enumerate(zip(corners, errors, strict=True))
    ]
    probabilities = [seen(scene, rng, *corner) for corner in corners]
    images += [image_at(40, 40), image_at(30, 30 + 20), image_at(5000, 0)]
    probabilities += [noise_alone(rng), seen(scene, rng, 30, 30), seen(scene, rng, 0, 0)]
    (_, last), mosaics = registered(tmp_path, images, probabilities)
    shifts = np.array([(east, north) for east, north, _ in last.read()])
    truth = errors[:, ::-1] * (-0.5, 0.5)
    np.testing.assert_allclose(shifts[:8], truth, atol=0.2)
    assert np.abs(shifts.mean(axis=0)).max() < 0.002
    assert (shifts[8:] == 0).all()
    assert [score is None for *_, score in last.read()] == [False] * 8 + [True] * 3
    exact = replace(last.start, shifts=(*(tuple(one) for one in truth.tolist()), *last.result.shifts[8:]))
    moved, still, best = (
        fused(tmp_path / str(i), one, mosaics) for i, one in enumerate((last.result, last.start, exact))
    )
    assert np.abs(moved - best).mean() < 0.2 * np.abs(still - best).mean()


def fused(folder, layout, mosaics):
    """The mean logits of a layout in the middle of the map."""
    maps = FusedMaps(folder, layout)
    for block in layout.blocks:
        maps.write(block, mosaics.__getitem__, MASK, Fusion(0.0, balance=False))
    return maps.read(0, slice(110, 310), slice(120, 310), 1)[0]


def test_identical_images_are_not_moved(tmp_path, scene):
    probability = seen(scene, np.random.default_rng(5), 0, 0)
    (only,), _ = registered(tmp_path, [image_at(0, 0)] * 3, [probability] * 3, rounds=1)
    assert only.read() == [(0, 0, 1)] * 3


def test_a_shifted_image_is_within_its_blocks_and_its_map():
    """Images at the edges of blocks of 1024 pixels, moved by 3 m in all directions."""
    images = tuple(image_at(row, 1000 * column, (1024, 1024)) for row in (0, 1017.5) for column in range(3))
    still = Layout(images, ((0.0, 0.0),) * 6)
    for shift in ((3.0, 0.0), (-3.0, 0.0), (0.0, 3.0), (0.0, -3.0), (2.1, 2.1)):
        layout = Layout(images, (shift,) * 6)
        assert layout.maps == still.maps
        assert layout.blocks == still.blocks
        (grid,) = layout.maps
        for number in range(6):
            rows, columns = layout.rectangle(number)
            assert 0 <= rows.start <= rows.stop <= grid.height
            assert 0 <= columns.start <= columns.stop <= grid.width
            corners = {
                (row // 1024, column // 1024)
                for row in (rows.start, rows.stop - 1)
                for column in (columns.start, columns.stop - 1)
            }
            assert corners <= {(block.row, block.column) for block in still.blocks_of(number)}
            moved = layout.image(number).corner
            assert moved == pytest.approx(np.add(images[number].corner, shift))
            place = layout.place(number)
            west, north = grid.corner
            assert (west + 0.5 * place.column, north - 0.5 * place.row) == pytest.approx(moved)


def test_the_shared_part_of_large_images_is_compared():
    large, right = image_at(0, 0, (9000, 5000)), image_at(3000, 4900, (4000, 6000))
    layout = Layout((large, right, image_at(8990, 0, (50, 50))), ((0.0, 0.0),) * 3)
    (rows, columns), shared = compared_part(layout, 0)
    margin = 6  # 3 m
    assert (rows.start, rows.stop) == (5000 - 1024 + margin, 5000 + 1024 + margin)
    assert (columns.start, columns.stop) == (5000 - 2048 + margin, 5000 + margin)
    assert shared == {1: 2048 * 100}
    _, shared = compared_part(layout, 2)
    assert shared == {0: 10 * 50}


def test_images_that_could_be_moved_onto_training_ground_are_kept_apart():
    """The second image shares an edge with the first, which was trained on, and the third overlaps the second."""
    images = (image_at(0, 0), image_at(0, 320), image_at(40, 360))
    trained_on = [Ground(np.array([[WEST, NORTH - 160, WEST + 160, NORTH]]), "EPSG:32631")]
    check_sides(Layout(images), trained_on)
    with pytest.raises(UserError):
        check_sides(Layout(images, ((0.0, 0.0),) * 3), trained_on)
    far = (images[0], *(replace(one, corner=(one.corner[0] + 7, one.corner[1])) for one in images[1:]))
    check_sides(Layout(far, ((0.0, 0.0),) * 3), trained_on)


# From the command


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors", random_network())


@pytest.fixture
def sn6_predict(sn6_command, weights):
    common = (f"checkpoint={weights}", "formats=[csv,geojson,parquet]", "device=cpu")
    return lambda *overrides: sn6_command("predict", *common, *overrides)


CORNERS = {"a": (0, 0), "b": (32, 64), "c": (96, 16), "d": (64, 96)}
ERRORS = {"a": (1.5, -1.0), "b": (-1.0, 1.5), "c": (0.5, 0.5), "d": (-1.0, -1.0)}  # m, east and north; mean 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four images of 256 × 256 pixels that overlap, where they belong and up to 1.8 m off, and one elsewhere."""
    path, ground, rng = tmp_path_factory.mktemp("images"), texture(16, 24), np.random.default_rng(0)
    for name, (row, column) in CORNERS.items():
        pixels = ground[:, row : row + 256, column : column + 256] + rng.uniform(0, 6, (4, 256, 256)).astype("f4")
        west, north = WEST + 0.5 * column, NORTH - 0.5 * row
        write_tif(path / "right" / f"{name}.tif", pixels, west, north)
        write_tif(path / "wrong" / f"{name}.tif", pixels, west + ERRORS[name][0], north + ERRORS[name][1])
    write_tif(path / "wrong" / "far.tif", texture(8, 24), WEST + 5000, NORTH)
    return path


def shifts_of(out):
    with (out / "shifts.csv").open() as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


def area_of(path):
    return shapely.union_all(geopandas.read_parquet(path).query("image_id != 'far'").geometry)


def iou(one, other):
    return shapely.area(one & other) / shapely.area(one | other)


def test_misplaced_images_give_footprints_on_the_true_ground(sn6_predict, folders, tmp_path):
    options = ("revisits=true", "merge=true", "fade=0", "balance=false", "probability=true")
    outs = {name: tmp_path / name for name in ("right", "wrong", "registered")}
    assert sn6_predict(f"images={folders}/right", *options, f"out={outs['right']}").status == 0
    assert sn6_predict(f"images={folders}/wrong", *options, f"out={outs['wrong']}").status == 0
    done = sn6_predict(f"images={folders}/wrong", *options, "register=true", f"out={outs['registered']}")
    assert done.status == 0, done.err
    rows = shifts_of(outs["registered"])
    for name, (east, north) in ERRORS.items():
        assert (float(rows[name]["east_m"]), float(rows[name]["north_m"])) == pytest.approx((-east, -north), abs=0.4)
        assert float(rows[name]["score"]) > 0.3
    assert rows["far"] == {"image_id": "far", "east_m": "0.000", "north_m": "0.000", "score": ""}
    (line,) = [line for line in done.err.splitlines() if "register=true" in line]
    largest = max(rows.values(), key=lambda row: np.hypot(float(row["east_m"]), float(row["north_m"])))
    assert f" {largest['image_id']};" in line
    for name in ("merged.parquet", "footprints.parquet"):
        truth, plain, moved = (area_of(outs[kind] / name) for kind in ("right", "wrong", "registered"))
        assert iou(moved, truth) > 0.85
        assert iou(moved, truth) > iou(plain, truth) + 0.05
    with (
        rasterio.open(outs["registered"] / "probability/a.tif") as raster,
        rasterio.open(folders / "wrong/a.tif") as image,
    ):
        assert (raster.transform, raster.shape) == (image.transform, image.shape)
    assert not (outs["wrong"] / "shifts.csv").exists()


FILES = ("proposals.csv", "footprints.geojson", "merged.geojson", "merged.parquet", "looks.tif", "shifts.csv")


@pytest.fixture
def options(folders):
    return f"images={folders}/wrong", "revisits=true", "merge=true", "register=true", "window=160", "overlap=32"


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(sn6_predict, options, tmp_path):
    for processes in (1, 2):
        done = sn6_predict(*options, f"out={tmp_path}/{processes}", f"processes={processes}")
        assert done.status == 0, done.err
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


@pytest.mark.slow
def test_a_stopped_prediction_resumes_to_the_same_bytes(sn6_predict, weights, options, tmp_path):
    assert sn6_predict(*options, f"out={tmp_path}/never").status == 0
    stopped = [
        f"checkpoint={weights}",
        "formats=[csv,geojson,parquet]",
        *options,
        f"out={tmp_path}/twice",
        "device=cpu",
    ]
    for steps, status in ((18, -9), (4, -9), (3, -9), (3, -9), (999, 0)):
        assert predict_and_stop(stopped, steps) == status
    for name in FILES:
        assert (tmp_path / "never" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes(), name
    assert not (tmp_path / "twice/unfinished").exists()


def test_registration_without_fusion_is_refused(sn6_predict, folders, tmp_path):
    done = sn6_predict(f"images={folders}/wrong", "register=true", f"out={tmp_path}/out")
    assert_fails(done, "conflict", "register")
    assert not (tmp_path / "out").exists()


def test_a_prediction_is_not_resumed_with_another_registration(sn6_predict, folders, tmp_path):
    options = (f"images={folders}/right", "revisits=true", f"out={tmp_path}/out")
    assert sn6_predict(*options).status == 0
    assert_fails(sn6_predict(*options, "register=true"), "conflict", "register")
