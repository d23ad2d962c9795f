"""Wrong input ends with one line that says what, where and what to do, status 1, and no traceback."""

import shutil

import numpy as np
import pytest
import rasterio
from helpers.commands import small_run
from helpers.handmade import folder


@pytest.fixture
def broken_root(archive_root, tmp_path):
    """A copy of the archive to break."""
    return shutil.copytree(archive_root, tmp_path / "broken")


def fails(done, *parts):
    """Status 1, and a last line that holds all the parts."""
    assert done.status == 1
    assert "Traceback" not in done.err
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("sn6: ")
    for part in parts:
        assert str(part) in line


def radar_tiles(root):
    return sorted((folder(root) / "SAR-Intensity").glob("*.tif"))


def write_pixels(path, pixels):
    with rasterio.open(path, "r+") as file:
        file.write(pixels)


def test_no_root(sn6_run, tmp_path):
    fails(sn6_run(*small_run()), "data.root is not set", "experiment=quickstart", "sn6.simulate root=DIR")
    assert not list((tmp_path / "outputs").iterdir())  # nothing is left of a run that was refused


def test_a_root_that_is_no_archive(sn6_run, tmp_path):
    fails(sn6_run(*small_run(), f"data.root={tmp_path}"), tmp_path, "is not an archive")


def test_a_truncated_geotiff(sn6_run, broken_root):
    for path in radar_tiles(broken_root):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = sn6_run(*small_run(), f"data.root={broken_root}")
    fails(done, f"{broken_root}/train/AOI_11_Rotterdam/SAR-Intensity/SN6_Train", "fetch it again")


def test_nan_in_a_tile(sn6_run, broken_root):
    for path in radar_tiles(broken_root):
        with rasterio.open(path) as file:
            pixels = file.read()
        pixels[1, 3, 5] = np.nan
        write_pixels(path, pixels)
    fails(sn6_run(*small_run(), f"data.root={broken_root}"), "NaN or infinity", "row 3, column 5", ".tif")


def test_a_strip_that_the_orientation_table_lacks(sn6_run, broken_root):
    path = folder(broken_root) / "SummaryData" / "SAR_orientations.txt"
    path.write_text("\n")
    fails(sn6_run(*small_run(), f"data.root={broken_root}"), "lacks the strip", "data.orient=false")
    assert sn6_run(*small_run(), f"data.root={broken_root}", "data.orient=false").status == 0


def test_a_malformed_label(sn6_run, broken_root):
    path = folder(broken_root) / "SummaryData" / "SN6_Train_AOI_11_Rotterdam_Buildings.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].split(",")[0] + ',0,"POLYGON ((1 2, 3",1,1,1'
    path.write_text("\n".join(lines))
    fails(sn6_run(*small_run(), f"data.root={broken_root}"), path, "4")


def test_a_column_without_a_tile(sn6_run, archive_root):
    fails(sn6_run(*small_run(), f"data.root={archive_root}", "data.fold=7"), "data.fold=7 is no column", "0 (west)")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("data.crops=64", ["no 'data.crops'", "crop, crops_per_tile"]),
        ("models.width=4", ["no 'models.width'", "data, model, loss"]),
        ("+data.crops=64", ["data: there is no 'crops'", "crop, crops_per_tile"]),
        ("data.crop=wide", ["data: crop='wide' does not do", "valid integer"]),
        ("model=resnet", ["model=resnet is unknown", "fcn16s, fcn32s, fcn8s, ternausnet, unet"]),
        ("data.augmentation=flip", ["augmentation='flip'", "'none', 'flip_lr' or 'dihedral'"]),
        ("trainer.precision=bf8", ["precision='bf8'", "bf16-mixed"]),
        ("seed=a", ["seed='a'", "valid integer"]),
        ("name=..", ["name='..'"]),
        ("optimizer.lr=high", ["lr='high'"]),
        ("data.crop=[1", ["data.crop=[1"]),
        ("data.bands=[1,2,3]", ["data.bands=[1, 2, 3] gives 3 bands", "model.in_channels=4"]),
        ("objective=val_F1", ["objective='val_F1'", "'val_f1'"]),
        ("trainer.accelerator=gpu", ["gpu"]),
    ],
)
def test_a_word_that_does_not_fit(sn6_run, archive_root, word, parts):
    fails(sn6_run(*small_run(), f"data.root={archive_root}", word), *parts)


def test_a_checkpoint_of_another_network(sn6_run, archive_root, tmp_path):
    assert sn6_run(*small_run(), f"data.root={archive_root}").status == 0
    path = tmp_path / "outputs/it/checkpoints/best.ckpt"
    other = [*small_run(model="unet"), f"data.root={archive_root}", "name=other"]
    fails(sn6_run(*other, f"model.weights={path}"), path, "is of TernausNet, and model=unet was asked for")
    wider = [*small_run(), f"data.root={archive_root}", "name=wider", "model.width=8"]
    fails(sn6_run(*wider, f"model.weights={path}"), path, "model.width=8", "has width=4", "leave model.width out")
    fails(sn6_run(*wider, "model.weights=none.ckpt"), "none.ckpt", "model.weights")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(path.read_bytes()[:1000])
    fails(sn6_run(*wider, f"model.weights={broken}"), broken)


def test_a_run_folder_with_a_checkpoint_of_another_network(sn6_run, archive_root, tmp_path):
    assert sn6_run(*small_run(), f"data.root={archive_root}").status == 0
    (tmp_path / "outputs/it/metrics.json").unlink()
    done = sn6_run(*small_run(model="unet"), f"data.root={archive_root}")
    fails(done, "outputs/it", "another config", "model._target_", "another name=")


def test_a_loss_that_becomes_nan(sn6_run, archive_root, tmp_path):
    done = sn6_run(
        *small_run(),
        f"data.root={archive_root}",
        "optimizer.lr=1e30",
        "trainer.limit_train_batches=9",
        "trainer.precision=32-true",
    )
    fails(done, "the loss became NaN or infinite at step", "lower optimizer.lr")
    assert not (tmp_path / "outputs/it/metrics.json").exists()
    assert not list((tmp_path / "outputs/it").rglob("*.ckpt"))
