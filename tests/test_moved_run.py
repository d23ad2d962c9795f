"""A run that is renamed, copied or mounted elsewhere, with its archive or without, goes on as the same run."""

import json
import os
import shutil

import pytest
import torch
import yaml
from helpers.resuming import RUN, STAGES, STATUS, assert_same_run, log_of, metrics_of
from helpers.stopping import read_user_error, run_and_stop

TWO_STAGES = "stages={eo:['data=eo'],sar:['data=sar','callbacks.sar_handoff.weights=${run_folder}/eo']}"


def copy_archive(root, target):
    """Copy the files of an archive with new times, without what is cached beside them."""
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(".sn6"), copy_function=shutil.copyfile)
    return target


def strings(value):
    """Yield the texts in a config, a checkpoint or a JSON file."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from strings(key)
            yield from strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


@pytest.fixture(scope="module")
def stopped(archive_root, tmp_path_factory):
    """The folder in which a run was killed in its second epoch; its files are in `saved` now, its own path is gone."""
    folder = tmp_path_factory.mktemp("stopped")
    assert run_and_stop([*RUN, f"data.root={archive_root}"], folder, "SIGKILL it 1 2") == STATUS["SIGKILL"]
    (folder / "outputs/it").rename(folder / "saved")
    return folder


@pytest.fixture
def moved(stopped, tmp_path):
    """The stopped run with another name in another folder."""
    shutil.copytree(stopped / "saved", tmp_path / "elsewhere/outputs/other")
    return tmp_path / "elsewhere"


@pytest.mark.slow
def test_two_stages_killed_and_moved_at_four_places_end_at_the_same_bits(bright_root, tmp_path):
    reference, first, second = (tmp_path / name for name in ("reference", "first", "second"))
    for folder in (reference, first, second):
        folder.mkdir()
    two_stages = [*RUN, TWO_STAGES]
    root = f"data.root={bright_root}"
    assert run_and_stop([*two_stages, root], reference) == 0, log_of(reference)[-3000:]

    assert run_and_stop([*two_stages, root], first, "SIGKILL eo 1 2") == STATUS["SIGKILL"]
    (first / "outputs/it").rename(first / "outputs/renamed")
    assert run_and_stop([*two_stages, root, "name=renamed"], first, "calibration eo") == STATUS["SIGKILL"]
    shutil.copytree(first / "outputs/renamed", second / "outputs/it")  # to another parent
    shutil.rmtree(first)
    assert run_and_stop([*two_stages, root], second, "SIGKILL sar 0 -1") == STATUS["SIGKILL"]  # at the transfer
    copied = f"data.root={copy_archive(bright_root, tmp_path / 'archive')}"
    assert run_and_stop([*two_stages, copied], second, "SIGKILL sar 1 2") == STATUS["SIGKILL"]
    last = tmp_path / "third/outputs/x/y"
    last.parent.mkdir(parents=True)
    (second / "outputs/it").rename(last)
    shutil.rmtree(second)
    assert run_and_stop([*two_stages, copied, "name=x/y"], tmp_path / "third") == 0, log_of(tmp_path / "third")
    assert_same_run(last, reference / "outputs/it", STAGES)

    before = (last / "metrics.json").stat().st_mtime_ns, (last / "sar/metrics.json").stat().st_mtime_ns
    (tmp_path / "archive").rename(tmp_path / "archive2")
    last.rename(tmp_path / "third/outputs/z")
    again = [*two_stages, f"data.root={tmp_path / 'archive2'}", "name=z"]
    assert run_and_stop(again, tmp_path / "third") == 0, log_of(tmp_path / "third")
    assert (tmp_path / "third/outputs/z/sar/metrics.json").stat().st_mtime_ns == before[1]  # finished


def test_moved_run_keeps_its_best_epoch(archive_root, finished_run, moved):
    assert run_and_stop([*RUN, f"data.root={archive_root}", "name=other"], moved) == 0, log_of(moved)[-3000:]
    assert_same_run(moved / "outputs/other", finished_run / "outputs/it")
    best = [
        torch.load(run / "checkpoints/best.ckpt", weights_only=True)
        for run in (moved / "outputs/other", finished_run / "outputs/it")
    ]
    assert best[0]["epoch"] == best[1]["epoch"]
    for name, tensor in best[0]["state_dict"].items():
        assert torch.equal(tensor, best[1]["state_dict"][name])


def test_nothing_in_a_run_names_its_own_folder(finished_run):
    run = finished_run / "outputs/it"
    files = {path: torch.load(path, weights_only=True) for path in run.rglob("*.ckpt")}
    files |= {path: yaml.safe_load(path.read_text()) for path in run.rglob("*.yaml")}
    files |= {path: json.loads(path.read_text()) for path in run.rglob("*.json")}
    assert len(files) >= 5
    for path, content in files.items():
        assert not [text for text in strings(content) if str(finished_run) in text], path
    state = next(state for state in files[run / "checkpoints/last.ckpt"]["callbacks"].values() if "dirpath" in state)
    assert (run / state["best_model_path"]).samefile(run / "checkpoints/best.ckpt")


@pytest.mark.parametrize("way", ["absolute", "symlink", "trailing slash", "relative", "copy"])
def test_the_archive_is_known_by_its_contents(archive_root, moved, way):
    (moved / "link").symlink_to(archive_root)
    roots = {
        "absolute": archive_root,
        "symlink": moved / "link",
        "trailing slash": f"{archive_root}/",
        "relative": os.path.relpath(archive_root, moved),
        "copy": copy_archive(archive_root, moved / "copy"),
    }
    assert run_and_stop([*RUN, f"data.root={roots[way]}", "name=other"], moved) == 0, log_of(moved)[-3000:]


def change_label(root):
    path = next(root.glob("train/*/SummaryData/*Buildings.csv"))
    text = path.read_text()
    path.write_text(text[:-5] + text[-5:].replace(text.rstrip()[-1], "9" if text.rstrip()[-1] != "9" else "8"))


def remove_tile(root):
    sorted(root.glob("train/*/SAR-Intensity/*.tif"))[0].unlink()


def enlarge_tile(root):
    with sorted(root.glob("train/*/SAR-Intensity/*.tif"))[0].open("ab") as file:
        file.write(b"\0" * 8)


def turn_a_strip(root):
    path = next(root.glob("train/*/SummaryData/SAR_orientations.txt"))
    line, *rest = path.read_text().splitlines()
    path.write_text("\n".join([line[:-1] + str(1 - int(line[-1])), *rest]) + "\n")


def change_test_label(root):
    path = next(root.glob("test_public_truth/*.csv"))
    path.write_text(path.read_text().replace("POLYGON ((", "POLYGON ((0 0, ", 1))


@pytest.mark.parametrize("change", [change_label, remove_tile, enlarge_tile, turn_a_strip, change_test_label])
def test_other_contents_are_refused_and_change_nothing(archive_root, moved, change):
    other = copy_archive(archive_root, moved / "copy")
    change(other)
    before = {path: path.read_bytes() for path in (moved / "outputs").rglob("*") if path.is_file()}
    assert run_and_stop([*RUN, f"data.root={other}", "name=other"], moved) == 1
    assert read_user_error(moved) == ("conflict", "data.root", str(other))
    after = {path: path.read_bytes() for path in (moved / "outputs").rglob("*") if path.is_file()}
    assert {path.name for path in after.keys() - before.keys()} <= {"error.txt", ".training"}
    assert {path: after[path] for path in before} == before
    assert "Traceback" not in log_of(moved)


def test_other_contents_at_the_same_path_are_refused_for_a_finished_run(archive_root, tmp_path):
    root = copy_archive(archive_root, tmp_path / "archive")
    run = [*RUN, f"data.root={root}", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    assert run_and_stop(run, tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert run_and_stop(run, tmp_path) == 0
    remove_tile(root)
    assert run_and_stop(run, tmp_path) == 1
    assert read_user_error(tmp_path) == ("conflict", "data.root", str(root))
    assert not (tmp_path / "outputs/it/error.txt").exists()  # the run itself has not failed


def test_run_of_the_version_before_with_absolute_paths_resumes_in_another_folder(
    archive_root, finished_run, stopped, moved
):
    """The version before wrote absolute paths to config.yaml and checkpoints, and no digests."""
    old, run = stopped / "outputs/it", moved / "outputs/other"
    (run / "inputs.json").unlink()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"folder": str(old), "run_folder": str(old)}
    config["callbacks"]["checkpoint"]["dirpath"] = f"{old}/checkpoints"
    config["callbacks"]["resume_point"]["folder"] = str(old)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for path in run.glob("checkpoints/*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["hyper_parameters"]["config"] = config
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state and state["best_model_path"]:
                best = f"{old}/checkpoints/best.ckpt"
                state |= {"dirpath": f"{old}/checkpoints", "best_model_path": best, "kth_best_model_path": best}
                state["best_k_models"] = {best: state["best_model_score"]}
        torch.save(checkpoint, path)
    assert run_and_stop([*RUN, f"data.root={archive_root}", "name=other"], moved) == 0, log_of(moved)[-3000:]
    assert_same_run(run, finished_run / "outputs/it")


def test_best_checkpoint_of_another_run_is_refused(archive_root, stopped, moved):
    for path in (moved / "outputs/other/checkpoints").glob("*last.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                state["best_model_path"] = str(stopped / "outputs/it/checkpoints/best.ckpt")
        torch.save(checkpoint, path)
    assert run_and_stop([*RUN, f"data.root={archive_root}", "name=other"], moved) == 1
    assert read_user_error(moved)[0] == "conflict"
    assert "Traceback" not in log_of(moved)


def test_folder_of_the_best_checkpoint_outside_the_run_is_refused(archive_root, tmp_path):
    overrides = [*RUN, f"data.root={archive_root}", f"callbacks.checkpoint.dirpath={tmp_path}/best"]
    assert run_and_stop(overrides, tmp_path) == 1
    assert read_user_error(tmp_path)[:2] == ("conflict", "callbacks.checkpoint.dirpath")
    assert not (tmp_path / "outputs").exists() or not list((tmp_path / "outputs").iterdir())


def test_symlinked_folders(archive_root, finished_run, stopped, tmp_path):
    """outputs/it is a link, and so is checkpoints/ in it."""
    disk = tmp_path / "disk"
    shutil.copytree(stopped / "saved", disk / "run")
    shutil.move(disk / "run/checkpoints", disk / "large")
    (disk / "run/checkpoints").symlink_to(disk / "large")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/linked").symlink_to(disk / "run")
    assert run_and_stop([*RUN, f"data.root={archive_root}", "name=linked"], tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert_same_run(disk / "run", finished_run / "outputs/it")


def test_weights_are_known_by_their_contents(archive_root, finished_run, tmp_path):
    for name in ("one", "two", "other"):
        shutil.copytree(finished_run / "outputs/it", tmp_path / name)
    best = tmp_path / "other/checkpoints/best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["state_dict"] = {name: tensor * 2 for name, tensor in checkpoint["state_dict"].items()}
    torch.save(checkpoint, best)
    run = [*RUN, f"data.root={archive_root}", "trainer.max_epochs=1"]
    key = "model.weights"
    assert run_and_stop([*run, f"{key}={tmp_path}/one"], tmp_path, "SIGKILL it 0 2") == STATUS["SIGKILL"]
    assert run_and_stop([*run, f"{key}={tmp_path}/other"], tmp_path) == 1
    assert read_user_error(tmp_path) == ("conflict", key, f"{tmp_path}/other")
    assert run_and_stop(run, tmp_path) == 1  # without weights
    assert read_user_error(tmp_path)[:2] == ("conflict", key)
    shutil.rmtree(tmp_path / "one")
    assert run_and_stop([*run, f"{key}={tmp_path}/two/checkpoints/best.ckpt"], tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert metrics_of(tmp_path / "outputs/it")["weights"]["file"] == f"{tmp_path}/two/checkpoints/best.ckpt"


@pytest.mark.slow
def test_jobs_of_a_moved_sweep_are_finished(archive_root, tmp_path):
    """Two stages; no process is started for a job that is finished."""
    run = [override for override in RUN if not override.startswith("+callbacks")]
    length = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    sweep = ["-m", "seed=0,1", "experiment=quickstart", "simulation=null", *run, *length]
    assert run_and_stop([*sweep, f"data.root={archive_root}"], tmp_path) == 0, log_of(tmp_path)[-3000:]
    root = copy_archive(archive_root, tmp_path / "archive")
    (tmp_path / "outputs/it").rename(tmp_path / "outputs/moved")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/moved").rglob("*.json")}
    assert len([path for path in before if path.name == "job.json"]) == 2
    (tmp_path / "log.txt").unlink()
    assert run_and_stop([*sweep, f"data.root={root}", "name=moved"], tmp_path) == 0, log_of(tmp_path)[-3000:]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/moved").rglob("*.json")} == before
