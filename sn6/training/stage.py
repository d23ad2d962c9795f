"""One training from start to end: network and data, fit, test on the best checkpoint, what is left in its folder."""

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from sn6.callbacks.calibration import calibrate
from sn6.callbacks.resume_point import AtomicCheckpointIO
from sn6.checkpoints.init_options import INIT_KEYS, check_building_class, resolve_options
from sn6.checkpoints.initial_weights import InitialWeights, provenance, read_initial_weights, summary
from sn6.checkpoints.run_files import FINAL_WEIGHTS
from sn6.config import check, to_plain
from sn6.data.datamodule import TileDataModule, share_of_batch
from sn6.errors import UserError
from sn6.files import write_text
from sn6.segmenter import Segmenter
from sn6.training.devices import check_devices, fastest_precision, has_batch_norm, on_gpu, stop_all_ranks_on_error
from sn6.training.external_launcher import check_world_size
from sn6.training.loggers import finish_loggers, keep_checkpoint, make_loggers
from sn6.training.results import best_checkpoint, build_metrics, print_summary, write_artifacts
from sn6.training.resume import check_same_config, finished_metrics, last_checkpoint

MONITORS = tuple(f"val/{key}" for key in ("f1", "precision", "recall", "iou", "loss"))
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
log = logging.getLogger(__name__)


def train(config: DictConfig) -> dict[str, Any]:
    """Trains and scores what `config` says, and leaves all in its folder; goes on where a stopped run was.

    With `trainer.max_epochs=0` it scores the weights of `model.weights` as they are.

    Args:
        config: as conf/ composes it

    Returns:
        What metrics.json holds.

    Raises:
        UserError: whatever the user can mend
    """
    check(config)
    if config.trainer.precision is None:
        config.trainer.precision = fastest_precision(config.trainer.accelerator)
    check_devices(config)
    given = weights_for(config)
    folder = Path(config.folder)
    if (metrics := finished_metrics(folder, to_plain(config))) is not None:
        log.info("%s is finished; give another name=... to run again, or resume=false to start over", folder)
        return metrics
    started = time.monotonic()
    with quiet_libraries(), one_line_refusals():
        seed_everything(config.seed, workers=True, verbose=False)
        path, step = last_checkpoint(folder) or (None, 0)
        if path is not None:
            check_same_config(folder, to_plain(config))
        segmenter, datamodule = make_modules(config, given)
        trainer = make_trainer(config, folder, has_batch_norm(segmenter))
        check_world_size(trainer.world_size)
        share_of_batch(datamodule.batch_size, trainer.world_size)
        trainer.loggers = make_loggers(config, folder, step)
        if trainer.is_global_zero:
            write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        with stop_all_ranks_on_error(trainer):
            if config.trainer.max_epochs == 0:
                best = keep_as_given(trainer, segmenter, datamodule, folder)
            else:
                trainer.fit(segmenter, datamodule, ckpt_path=path)
                best = best_checkpoint(trainer)
            chosen = calibrate(trainer, segmenter, datamodule, best)
            trainer.test(segmenter, datamodule, ckpt_path=best, verbose=False)
    metrics = build_metrics(trainer, datamodule, best, chosen) | {"seconds": round(time.monotonic() - started, 1)}
    if given is not None:
        metrics["weights"] = provenance(given, datamodule.fold, config.model.weights_fold)
    if trainer.is_global_zero:
        write_artifacts(trainer, datamodule, best)
        keep_checkpoint(config, trainer.loggers, best)
        write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        print_summary(metrics, folder)
    finish_loggers()
    return metrics


def weights_for(config: DictConfig) -> InitialWeights | None:
    """The weights that the network starts from, if any; what they fix of it is entered into `config.model`.

    Raises:
        UserError: they cannot be read or do not go with what is said of the network, or there are none to score
    """
    model = config.model
    if config.trainer.max_epochs == 0 and (
        model.weights is None or config.callbacks.get("sar_handoff", {}).get("weights")
    ):
        raise UserError(
            "trainer.max_epochs=0 scores weights as they are; name them by model.weights=PATH, and only there"
        )
    given = None if model.weights is None else read_initial_weights(model.weights, "model.weights", FINAL_WEIGHTS)
    if given is not None and "pretrained" in model:
        model.pretrained = None  # all layers are given, or start anew
    asked = {key: value for key, value in to_plain(model).items() if key not in ("_target_", *INIT_KEYS)}
    held, where = (given.network, given.where) if given else ({}, "")
    for key, value in resolve_options(get_class(model._target_), asked, held, model.reset_head, where).items():
        model[key] = value
    check_building_class(model.classes, model.building_class)
    return given


def make_modules(config: DictConfig, given: InitialWeights | None) -> tuple[Segmenter, TileDataModule]:
    """The network with its loss and optimizer, and the data that it is trained on."""
    loss = instantiate(config.loss, _convert_="all")
    datamodule = instantiate(config.data, _convert_="all", pixel_weights=loss.pixel_weights)
    bands = list(datamodule.source.bands)
    if len(bands) != config.model.in_channels:
        raise UserError(
            f"data.bands={bands} gives {len(bands)} bands to a network of model.in_channels="
            f"{config.model.in_channels}; set one to fit the other"
        )
    model = {key: value for key, value in to_plain(config.model).items() if key not in INIT_KEYS}
    network = instantiate(model, _convert_="all")
    if given is not None:
        rows = given.fit_into(network, datamodule.source, config.model.adapt, config.model.reset_head)
        rank_zero_only(log.info)("%s: %s", given.where, summary(rows))
    if config.compile:
        network.compile()  # in place: the names of the weights stay
    segmenter = Segmenter(
        network,
        loss,
        instantiate(config.optimizer, _convert_="all"),
        instantiate(config.schedule, _convert_="all"),
        config.seed,
        config.window,
        config.window_overlap,
        config.model.building_class,
        config=to_plain(config),
    )
    return segmenter, datamodule


def keep_as_given(trainer: Trainer, segmenter: Segmenter, datamodule: TileDataModule, folder: Path) -> str:
    """Validates a network that is not trained, and keeps it as the best checkpoint."""
    trainer.validate(segmenter, datamodule, verbose=False)
    path = str(folder / "checkpoints" / "best.ckpt")
    trainer.save_checkpoint(path)
    assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    trainer.checkpoint_callback.best_model_path = path
    return path


def make_trainer(config: DictConfig, folder: Path, batch_norm: bool) -> Trainer:
    """The Trainer with its callbacks; `batch_norm` tells whether the devices have to share statistics."""
    monitor = config.callbacks.checkpoint.monitor
    if monitor not in MONITORS:
        raise UserError(f"callbacks.checkpoint.monitor={monitor} is not logged; choose from {', '.join(MONITORS)}")
    if config.trainer.limit_val_batches == 0:
        raise UserError("trainer.limit_val_batches=0 leaves nothing to choose the epoch by; give 1 or more, or null")
    return instantiate(
        config.trainer,
        _convert_="all",
        callbacks=[instantiate(callback, _convert_="all") for callback in config.callbacks.values()],
        logger=False,  # made when all else fits: W&B starts a run with it
        profiler=make_profiler(config.trainer.profiler, folder),
        sync_batchnorm=batch_norm and on_gpu(config.trainer.accelerator),  # torch has it for GPUs alone
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        use_distributed_sampler=False,  # the datamodule deals the tiles out itself
        enable_model_summary=False,
    )


def make_profiler(name: str | None, folder: Path) -> Profiler | None:
    """Lightning's profiler of that name, with its summary in `fit-profile.txt` of the run's folder.

    Raises:
        UserError: there is none
    """
    if name is None:
        return None
    if name not in PROFILERS:
        raise UserError(f"trainer.profiler={name} is unknown; choose from {', '.join(PROFILERS)}, or null")
    return PROFILERS[name](dirpath=folder, filename="profile")


@contextmanager
def one_line_refusals() -> Iterator[None]:
    """Turns what Lightning raises about its arguments into a UserError."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leaves out what libraries say of themselves, and advice that does not hold here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # two processes feed two cores
            ".*sync_dist=True.*",  # the table of tiles is the same on all ranks already
            ".*is smaller than the logging interval.*",
            ".*PyTorch Profiler default schedule.*",  # a short run
            ".*no geotransform.*",  # masks are pixels; rasterio's own filter does not hold beside another thread
            ".*lr_scheduler.step.* before .*optimizer.step.*",  # 16-mixed skips steps until its scale fits
            ".*isinstance.treespec, LeafSpec.*",  # Lightning's own
            ".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
            ".*Experiment logs directory .* exists and is not empty.*",  # config.yaml lies there already
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
