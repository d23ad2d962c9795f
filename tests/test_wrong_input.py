"""Invalid input ends a run with one line that says what, where and what to do, status 1, and no traceback."""

import numpy as np
import pytest
import rasterio
from helpers.commands import assert_fails, small_run
from helpers.handmade import folder

CANDIDATES = "callbacks.calibration.candidates"


def sar_tiles(root):
    return sorted((folder(root) / "SAR-Intensity").glob("*.tif"))


def is_sar_tile(path):
    return "SAR-Intensity" in path and path.endswith(".tif")


def test_no_root(sn6_run, tmp_path):
    assert_fails(sn6_run(*small_run()), "missing_value", "data.root")
    assert not list(tmp_path.iterdir())  # a run that is refused leaves no folder


def test_a_root_that_is_no_archive(sn6_run, tmp_path):
    done = sn6_run(*small_run(), f"data.root={tmp_path}")
    assert_fails(done, "not_found")
    assert str(tmp_path) in str(done.error)


def test_a_truncated_geotiff(sn6_run, broken_root):
    for path in sar_tiles(broken_root):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = sn6_run(*small_run(), f"data.root={broken_root}")
    assert_fails(done, "unreadable")
    assert is_sar_tile(done.error.key)


def test_nan_in_a_tile_is_nodata(sn6_run, broken_root, tmp_path):
    for path in sar_tiles(broken_root):
        with rasterio.open(path, "r+") as file:
            pixels = file.read()
            pixels[1, 30:50, 5:99] = np.nan
            file.write(pixels)
    assert sn6_run(*small_run(), f"data.root={broken_root}").status == 0
    (metrics,) = tmp_path.rglob("metrics.json")
    assert "NaN" not in metrics.read_text()


def test_radar_in_pixels_of_one_metre(sn6_run, broken_root):
    """The labels are drawn for 0.5 m; each file is otherwise as published."""
    for path in sar_tiles(broken_root):
        with rasterio.open(path, "r+") as file:
            file.transform = file.transform * rasterio.Affine.scale(2)
    done = sn6_run(*small_run(), f"data.root={broken_root}")
    assert done.error.kind == "wrong_data"
    assert is_sar_tile(done.error.key)


def test_a_strip_that_the_table_of_orientations_lacks(sn6_run, broken_root):
    (folder(broken_root) / "SummaryData" / "SAR_orientations.txt").write_text("\n")
    done = sn6_run(*small_run(), f"data.root={broken_root}")
    assert done.error is not None
    assert "data.orient=false" in str(done.error)
    assert sn6_run(*small_run(), f"data.root={broken_root}", "data.orient=false").status == 0


def test_a_malformed_label(sn6_run, broken_root):
    path = folder(broken_root) / "SummaryData" / "SN6_Train_AOI_11_Rotterdam_Buildings.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].split(",")[0] + ',0,"POLYGON ((1 2, 3",1,1,1'
    path.write_text("\n".join(lines))
    done = sn6_run(*small_run(), f"data.root={broken_root}")
    assert done.error is not None
    assert done.error.key == str(path)
    assert "line 4" in str(done.error)


def test_a_fold_that_does_not_exist(sn6_run, archive_root):
    assert_fails(sn6_run(*small_run(), f"data.root={archive_root}", "data.fold=7"), "invalid_value", "data.fold", 7)


@pytest.mark.parametrize(
    ("override", "kind", "key"),
    [
        ("data.crops=64", "unknown_key", "data.crops"),
        ("models.width=4", "unknown_key", "models.width"),
        ("+data.crops=64", "unknown_key", "data.crops"),
        ("+trainer.kernels=64", "unknown_key", "trainer.kernels"),
        ("+anything=1", "unknown_key", "anything"),
        ("data.crop=wide", "invalid_value", "data.crop"),
        ("model=resnet", "unknown_value", "model"),
        ("augmentation=flip", "unknown_value", "augmentation"),
        ("data.augmentation=dihedral", "unknown_key", "data.augmentation"),
        ("~augmentation", "missing_value", "augmentation._target_"),
        ("+trainer.fast_dev_run=true", "conflict", "trainer.fast_dev_run"),
        ("trainer.precision=bf8", "invalid_value", "trainer.precision"),
        ("seed=a", "invalid_value", "seed"),
        ("name=..", "invalid_value", "name"),
        ("optimizer.lr=high", "invalid_value", "optimizer.lr"),
        ("optimizer.lr=-1", "invalid_value", "optimizer.lr"),
        ("optimizer.lr=inf", "invalid_value", "optimizer.lr"),
        ("optimizer.weight_decay=-0.1", "invalid_value", "optimizer.weight_decay"),
        ("+optimizer.betas=[2,3]", "invalid_value", "optimizer.betas"),
        ("trainer.strategy=fast", "invalid_value", "trainer.strategy"),
        ("trainer.accelerator=fast", "invalid_value", "trainer.accelerator"),
        ("trainer.devices=0", "invalid_value", "trainer.devices"),
        ("trainer.devices=[0,0]", "invalid_value", "trainer.devices"),
        ("trainer.devices=-1", "conflict", "trainer.devices"),
        ("trainer.max_epochs=-5", "invalid_value", "trainer.max_epochs"),
        ("trainer.max_steps=0", "invalid_value", "trainer.max_steps"),
        ("trainer.max_epochs=-1", "conflict", "trainer.max_steps"),
        ("--name=first", "unknown_key", "--name=first"),
        ("trainer.check_val_every_n_epoch=0", "invalid_value", "trainer.check_val_every_n_epoch"),
        ("trainer.gradient_clip_val=-1", "invalid_value", "trainer.gradient_clip_val"),
        ("trainer.accumulate_grad_batches=0", "invalid_value", "trainer.accumulate_grad_batches"),
        ("trainer.limit_train_batches=2.5", "invalid_value", "trainer.limit_train_batches"),
        ("+trainer.val_check_interval=0", "invalid_value", "trainer.val_check_interval"),
        ("+trainer.logger=true", "conflict", "trainer.logger"),
        ("+trainer.default_root_dir=elsewhere", "conflict", "trainer.default_root_dir"),
        ("+trainer.max_time=soon", "invalid_value", "trainer"),
        ("seed=4294967296", "invalid_value", "seed"),
        ("data.fold=-1", "invalid_value", "data.fold"),
        ("data.fold=99", "invalid_value", "data.fold"),
        ("data.min_area=-1", "invalid_value", "data.min_area"),
        ("data.bands=[]", "invalid_value", "data.bands"),
        ("data.bands=[0]", "invalid_value", "data.bands"),
        ("data.num_workers=100000", "invalid_value", "data.num_workers"),
        ("data.batch_size=100000000", "invalid_value", "data.batch_size"),
        ("model.width=1000000", "invalid_value", "model.width"),
        ("window=64", "invalid_value", "window_overlap"),
        ("name=../elsewhere", "invalid_value", "name"),
        ("name=/elsewhere", "invalid_value", "name"),
        ('name="a\tb"', "invalid_value", "name"),
        ("stages={}", "invalid_value", "stages"),
        ("stages={../a:[]}", "invalid_value", "stages"),
        ("stages=sar", "invalid_value", "stages"),
        ("logger=null", "unknown_value", "logger"),
        ("logger=", "unknown_value", "logger"),
        ("hydra/launcher=null", "unknown_value", "hydra/launcher"),
        ("data.crop", "invalid_value", "data.crop"),
        ("~stages", "missing_value", "stages"),
        ("~optimizer", "missing_value", "optimizer._target_"),
        ("~trainer.precision", "missing_value", "trainer.precision"),
        ("~model.weights", "missing_value", "model.weights"),
        ("~callbacks.polygon_f1", "missing_value", "callbacks.polygon_f1"),
        ("~callbacks.checkpoint", "missing_value", "callbacks.checkpoint"),
        ("data.crop=[1", "invalid_value", "data.crop"),
        ("model.in_channels=3", "conflict", "model.in_channels"),
        ("objective=val_F1", "invalid_value", "objective"),
        ("callbacks.checkpoint.monitor=val/F1", "unknown_value", "callbacks.checkpoint.monitor"),
        ("polygons.threshold=1.5", "invalid_value", "polygons.threshold"),
        ("callbacks.polygon_f1.curve=[0,0.5]", "invalid_value", "callbacks.polygon_f1.curve"),
        ("callbacks.calibration.candidates={threshold:[0.5,1]}", "invalid_value", f"{CANDIDATES}.threshold"),
        ("callbacks.calibration.candidates={min_area:[20,-1]}", "invalid_value", f"{CANDIDATES}.min_area"),
        ("callbacks.calibration.candidates={simplify:[0.5]}", "unknown_key", f"{CANDIDATES}.simplify"),
        ("callbacks.calibration.candidates={seed:[0.5]}", "unknown_key", f"{CANDIDATES}.seed"),
        ("callbacks.calibration.candidates={threshold:[]}", "invalid_value", CANDIDATES),
        ("callbacks.calibration.candidates={}", "invalid_value", CANDIDATES),
        ("callbacks.calibration.candidates={threshold:0.5}", "invalid_value", CANDIDATES),
        ("callbacks.calibration.candidates={threshold:[high]}", "invalid_value", CANDIDATES),
        ("callbacks.calibration.candidates=[0.5]", "invalid_value", CANDIDATES),
        ("callbacks.polygon_f1.threshold=0.4", "unknown_key", "callbacks.polygon_f1.threshold"),
        ("+callbacks.polygon_f1.min_area=4", "unknown_key", "callbacks.polygon_f1.min_area"),
        ("callbacks.calibration.thresholds=[0.5]", "unknown_key", "callbacks.calibration.thresholds"),
        ("polygons=watershed", "conflict", "polygons"),
        ("polygons=distance", "conflict", "polygons"),
        ("polygons=centre_offset", "conflict", "polygons"),
        ("polygons=null", "unknown_value", "polygons"),
        ("polygons=contours", "unknown_value", "polygons"),
        ("polygons.seed=0.5", "unknown_key", "polygons.seed"),
        ("polygons.min_area=-1", "invalid_value", "polygons.min_area"),
        ("polygons.min_area=.nan", "invalid_value", "polygons.min_area"),
        ("polygons.threshold=null", "invalid_value", "polygons.threshold"),
        ("polygons._target_=sn6.losses.BCE", "invalid_value", "polygons._target_"),
        ("polygons._target_=sn6.footprints.thresholds.Threshold", "not_found", "polygons._target_"),
        ("~polygons", "missing_value", "polygons._target_"),
        ("trainer.limit_val_batches=0", "invalid_value", "trainer.limit_val_batches"),
        ("trainer.profiler=fast", "invalid_value", "trainer.profiler"),
        ("sweep=grid", "conflict", "sweep"),
        ("simulation={tiles: none}", "invalid_value", "simulation.tiles"),
        ("simulation={tiles: 0}", "invalid_value", "simulation.tiles"),
        ("simulation={scale: huge}", "invalid_value", "simulation.scale"),
        ("simulation={houses: 3}", "unknown_key", "simulation.houses"),
    ],
)
def test_an_override_that_is_invalid(sn6_run, archive_root, tmp_path, override, kind, key):
    done = sn6_run(*small_run(), f"data.root={archive_root}", override)
    assert_fails(done, kind, key)
    assert not (tmp_path / "outputs/it").exists()


@pytest.mark.parametrize(
    ("override", "near"), [("data.crp=64", "data.crop"), ("trainer.precison=32-true", "precision")]
)
def test_a_misspelled_key_is_answered_with_the_nearest(sn6_run, archive_root, override, near):
    done = sn6_run(*small_run(), f"data.root={archive_root}", override)
    assert_fails(done, "unknown_key")
    assert near in str(done.error).partition("?")[0]


def test_a_checkpoint_of_another_network(sn6_run, archive_root, tmp_path):
    assert sn6_run(*small_run(), f"data.root={archive_root}").status == 0
    path = tmp_path / "outputs/it/checkpoints/best.ckpt"
    other = [*small_run(model="unet"), f"data.root={archive_root}", "name=other"]
    assert_fails(sn6_run(*other, f"model.weights={path}"), "mismatch", "model", "unet")
    wider = [*small_run(), f"data.root={archive_root}", "name=wider", "model.width=8"]
    assert_fails(sn6_run(*wider, f"model.weights={path}"), "mismatch", "model.width", 8)
    assert_fails(sn6_run(*wider, "model.weights=none.ckpt"), "not_found", "model.weights")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(path.read_bytes()[:1000])
    assert_fails(sn6_run(*wider, f"model.weights={broken}"), "unreadable")


def test_a_run_folder_with_a_checkpoint_of_another_network(sn6_run, archive_root, tmp_path):
    assert sn6_run(*small_run(), f"data.root={archive_root}").status == 0
    (tmp_path / "outputs/it/metrics.json").unlink()
    done = sn6_run(*small_run(model="unet"), f"data.root={archive_root}")
    assert_fails(done, "conflict")
    assert done.error.key.startswith("model.")


def test_a_loss_that_becomes_nan(sn6_run, archive_root, tmp_path):
    done = sn6_run(
        *small_run(),
        f"data.root={archive_root}",
        "optimizer.lr=1e30",
        "trainer.limit_train_batches=9",
        "trainer.precision=32-true",
    )
    assert_fails(done, "failed", "optimizer.lr")
    assert not (tmp_path / "outputs/it/metrics.json").exists()
    assert not list((tmp_path / "outputs/it").rglob("*.ckpt"))
    assert (tmp_path / "outputs/it/error.txt").read_text().strip() == str(done.error)
