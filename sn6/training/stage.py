"""One training from start to end: network and data, fit, test on the best checkpoint, files in its folder."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning import Callback, Trainer, seed_everything
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from sn6.callbacks.calibration import Choice, calibrate, validate_calibrated
from sn6.callbacks.last_validation import LastValidation
from sn6.callbacks.resume_point import AtomicCheckpointIO, TrainerSignals
from sn6.checkpoints.architecture import build_network, ignored_keys
from sn6.checkpoints.init_options import network_arguments
from sn6.checkpoints.initial_weights import provenance, summary
from sn6.checkpoints.polygonizer import build_polygonizer
from sn6.checkpoints.run_files import BEST
from sn6.config.targets import import_target, is_switched_off, make_object
from sn6.data.augment import Augmentation
from sn6.data.datamodule import TileDataModule, per_device_batch_size
from sn6.datasets.declaration import DataSet
from sn6.datasets.from_config import further_nodes, module_node, open_data_set
from sn6.errors import UserError, first_line
from sn6.files import write_text
from sn6.heads import CLASSES, HeadLosses, Heads
from sn6.models.first_layer import FirstLayer
from sn6.segmenter import Segmenter
from sn6.simulation.archive import make_archive, settings_of
from sn6.targets.target import Target
from sn6.training.devices import SyncBatchNorm, has_batch_norm, on_gpu, stop_all_ranks_on_error
from sn6.training.external_launcher import check_world_size
from sn6.training.heads import make_heads
from sn6.training.killed import report_killed
from sn6.training.loggers import finish_loggers, log_checkpoint, log_results, make_loggers
from sn6.training.longer import train_longer
from sn6.training.memory_errors import memory_errors
from sn6.training.memory_need import check_memory
from sn6.training.profilers import make_profiler
from sn6.training.quiet import lightning_errors, quiet_libraries
from sn6.training.relative_paths import RelativePaths
from sn6.training.report import print_name, print_start
from sn6.training.resolved_config import ResolvedConfig
from sn6.training.results import best_checkpoint, build_metrics, timed, write_artifacts, write_weights_file
from sn6.training.resume import METRICS_FILE, check_same_run, finished_metrics, last_checkpoint
from sn6.training.revisits import score_revisits
from sn6.training.run_inputs import write_inputs
from sn6.training.run_paths import portable
from sn6.training.saved_config import CONFIG_FILE

log = logging.getLogger(__name__)


def train(config: ResolvedConfig) -> dict[str, Any]:
    """Train and score what `config` says, and write everything to its folder; resume a stopped run.

    With `trainer.max_epochs=0` the weights of `model.weights` are scored without training.

    Returns:
        The contents of metrics.json.

    Raises:
        UserError: invalid input
    """
    tree, folder = config.tree, config.folder
    train_longer(folder, config.to_dict())
    if (metrics := finished_metrics(folder, config.to_dict())) is not None:
        return metrics
    timing: dict[str, float] = {}
    rank_zero_only(print_name)(tree.name, folder)
    with quiet_libraries(), lightning_errors(), timed(timing, "total"):
        seed_everything(tree.seed, workers=True, verbose=False)
        path, step = last_checkpoint(folder) or (None, 0)
        if tree.simulation is not None and tree.data.root is not None:
            make_archive(Path(tree.data.root), settings_of(**tree.simulation))
        if path is not None:
            check_same_run(folder, config.to_dict(), may_train_longer=True)
        segmenter, datamodule = make_modules(config, resumes=path is not None)
        trainer = make_trainer(config, has_batch_norm(segmenter))
        datamodule.count_over_ranks(trainer)
        check_world_size(trainer.world_size)
        per_device_batch_size(datamodule.batch_size, trainer.world_size)
        trainer.loggers = make_loggers(config, step)
        if trainer.is_global_zero:
            write_inputs(folder, config.to_dict(), resumes=path is not None)
            write_text(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(portable(config.to_dict()))))
        with (
            stop_all_ranks_on_error(trainer),
            report_killed(trainer, folder, datamodule.num_workers),
            memory_errors(trainer, segmenter, datamodule),
        ):
            best, choice = fit_and_score(trainer, segmenter, datamodule, path, timing)
            with timed(timing, "revisits"):
                fused = score_revisits(trainer, datamodule, best, config.to_dict()) if tree.test.revisits else None
    metrics = build_metrics(trainer, datamodule, best, choice, timing)
    if fused is not None:
        metrics["test"]["revisits"] = fused
    if config.weights is not None:
        metrics["weights"] = provenance(
            config.weights, datamodule.fold, datamodule.data_set.frame, tree.model.weights_fold
        )
    if trainer.is_global_zero:
        write_artifacts(tree.name, trainer, datamodule, best, choice)
        write_weights_file(folder, best)
        log_checkpoint(trainer.loggers, best)
        log_results(trainer.loggers, config.to_dict(), metrics)
        write_text(folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")
    finish_loggers()
    return metrics


def fit_and_score(
    trainer: Trainer, segmenter: Segmenter, datamodule: TileDataModule, path: Path | None, timing: dict[str, float]
) -> tuple[str, Choice | None]:
    """Train, calibrate the best checkpoint, and score the validation and test tiles at their operating points.

    Args:
        trainer: with its loggers
        segmenter: network and loss
        datamodule: data
        path: checkpoint to resume from
        timing: seconds by phase, filled in here

    Returns:
        The path of the best checkpoint, and what was calibrated, None where the config's values stay.
    """
    with timed(timing, "data"):
        datamodule.setup()
    rank_zero_only(print_start)(trainer, segmenter, datamodule)
    with timed(timing, "fit"):
        if trainer.max_epochs == 0:
            best = save_initial_weights(trainer, segmenter, datamodule)
        else:
            trainer.fit(segmenter, datamodule, ckpt_path=path)
            best = best_checkpoint(trainer, segmenter.hparams["config"])
    with timed(timing, "calibration"):
        choice = calibrate(trainer, segmenter, datamodule, best)
    with timed(timing, "validation"):
        validate_calibrated(trainer, segmenter, datamodule, best)
    with timed(timing, "test"):
        trainer.test(segmenter, datamodule, ckpt_path=best, verbose=False)
    return best, choice


def make_modules(config: ResolvedConfig, resumes: bool) -> tuple[Segmenter, TileDataModule]:
    """Make the network with its heads and optimizer, and the data that it is trained on.

    Args:
        config: of the training
        resumes: whether a checkpoint replaces the network's weights
    """
    tree = config.tree
    heads = make_heads(config.to_dict())
    losses, augmentation = HeadLosses(heads), make_augmentation(tree.augmentation)
    datamodule = make_datamodule(config.to_dict()["data"], augmentation, losses.targets)
    check_classes(losses.heads, datamodule.data_set)
    bands = list(datamodule.source.bands)
    if len(bands) != tree.model.in_channels:
        raise UserError(
            f"data.bands={bands} are {len(bands)} bands, but model.in_channels={tree.model.in_channels}; set one to "
            "match the other",
            kind="conflict",
            key="model.in_channels",
            value=tree.model.in_channels,
        )
    check_memory(network_arguments(config.to_dict()["model"]), config.to_dict()["data"], len(bands))
    starts_pretrained = not resumes and config.weights is None
    first_layer = FirstLayer(tree.model.adapt or "mean", tuple(datamodule.source.product.band_names(bands)))
    network = build_network(network_arguments(config.to_dict()["model"]), starts_pretrained, first_layer)
    if ignored := ignored_keys(network_arguments(config.to_dict()["model"])):
        rank_zero_only(log.info)("%s has no %s of the experiment; left out", type(network).__name__, ", ".join(ignored))
    if config.weights is not None:
        rows = config.weights.load_into(network, datamodule.source, tree.model.adapt, tree.model.reset_head)
        trained_on = "".join(f"; trained on {words}" for words in config.weights.differences(datamodule.source))
        rank_zero_only(log.info)("%s: %s%s", config.weights.where, summary(rows), trained_on)
    if tree.compile:
        network.compile()  # in place: the names of the weights stay
    segmenter = Segmenter(
        network,
        heads,
        instantiate(tree.optimizer, _convert_="all"),
        instantiate(tree.schedule, _convert_="all"),
        tree.seed,
        tree.window,
        tree.window_overlap,
        tree.model.multiple,
        tree.model.building_class,
        tree.flips,
        config=portable(config.to_dict()),
    )
    return segmenter, datamodule


def check_classes(heads: Heads, data_set: DataSet) -> None:
    """Raise a UserError if the head of the classes learns others than the labels have."""
    if heads.class_names and heads.class_names != data_set.classes:
        labelled = f"are of {', '.join(data_set.classes)}" if data_set.classes else "have no classes"
        raise UserError(
            f"heads.{CLASSES} learns {', '.join(heads.class_names)}, but the labels of the data {labelled}; set "
            "data.classes and data.category, and leave out the names of the head",
            kind="conflict",
            key=f"heads.{CLASSES}",
            value=list(heads.class_names),
        )


def make_datamodule(
    data: Mapping[str, Any], augmentation: Augmentation, targets: Mapping[str, Target]
) -> TileDataModule:
    """Make the data that a network is trained on, with the further data of its node.

    Args:
        data: the node `data` of a config
        augmentation: of the training crops
        targets: maps that the losses need, by name
    """
    made = {"augmentation": augmentation, "targets": targets}
    further = {
        name: (make_object(module_node(node), "data", data_set=open_data_set(node), **made), weight)
        for name, (node, weight) in further_nodes(data).items()
    }
    module: TileDataModule = make_object(
        module_node(data), "data", data_set=open_data_set(data), further=further, **made
    )
    return module


def make_augmentation(node: DictConfig) -> Augmentation:
    """Make the augmentation of the training crops.

    Raises:
        UserError: it is of another class
    """
    augmentation, name = make_object(node, "augmentation"), str(node["_target_"])
    if not isinstance(augmentation, Augmentation):
        raise UserError(
            f"augmentation._target_={name} is no subclass of sn6.data.augment.Augmentation; derive it from that class",
            kind="invalid_value",
            key="augmentation._target_",
            value=name,
        )
    return augmentation


def make_trainer(config: ResolvedConfig, batch_norm: bool) -> Trainer:
    """Make the Trainer with its callbacks.

    Args:
        config: of the training
        batch_norm: whether the devices have to share statistics

    Raises:
        UserError: an argument that Lightning refuses
    """
    trainer = config.tree.trainer
    further = {"polygon_f1": {"polygonizer": build_polygonizer(config.to_dict()["polygons"], "polygons")}}
    nodes = active_callbacks(config.tree.callbacks)
    callbacks = [make_callback(name, node, further.get(name, {})) for name, node in nodes.items()]
    shares_statistics = batch_norm and on_gpu(trainer.accelerator)  # torch does it only on GPUs
    arguments: dict[str, Any] = {
        "callbacks": [LastValidation(), *callbacks, RelativePaths()],
        "logger": False,  # made when everything else fits: W&B starts a run with it
        "profiler": make_profiler(trainer.profiler, config.folder),
        "plugins": [AtomicCheckpointIO(), *([SyncBatchNorm()] if shares_statistics else [])],
        "default_root_dir": config.folder,
        "use_distributed_sampler": False,  # the datamodule distributes the tiles itself
        "enable_model_summary": False,
    }
    try:
        made: Trainer = instantiate(trainer, _convert_="all", **arguments)
    except (ValueError, TypeError, HydraException) as error:  # such as a strategy that does not exist
        raise UserError(f"trainer: {first_line(error)}", kind="invalid_value", key="trainer") from None
    made._signal_connector = TrainerSignals(made)
    return made


def active_callbacks(nodes: Mapping[Any, Any]) -> dict[str, DictConfig]:
    """Return the nodes of the callbacks of a run; a null leaves one out, in place of it or of its switch."""
    given = {str(name): node for name, node in nodes.items() if node is not None}
    targets = {name: import_target(str(node["_target_"]), f"callbacks.{name}") for name, node in given.items()}
    return {name: node for name, node in given.items() if not is_switched_off(targets[name], node)}


def make_callback(name: str, node: DictConfig, arguments: Mapping[str, Any]) -> Callback:
    """Make a callback of the config, with further arguments.

    Raises:
        UserError: it is none
    """
    callback, target = make_object(node, f"callbacks.{name}", **arguments), str(node["_target_"])
    if not isinstance(callback, Callback):
        raise UserError(
            f"callbacks.{name}._target_={target} is no lightning.Callback; derive it from that class, or leave it out",
            kind="invalid_value",
            key=f"callbacks.{name}._target_",
            value=target,
        )
    return callback


def save_initial_weights(trainer: Trainer, segmenter: Segmenter, datamodule: TileDataModule) -> str:
    """Validate a network that is not trained, and save it as the best checkpoint."""
    trainer.validate(segmenter, datamodule, verbose=False)
    path = str(Path(trainer.default_root_dir) / BEST)
    trainer.save_checkpoint(path)
    assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    trainer.checkpoint_callback.best_model_path = path
    return path
