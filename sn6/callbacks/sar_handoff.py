"""Start a SAR run from the weights of an EO run."""

import csv
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import nn

from sn6.callbacks.logged_media import log_table
from sn6.checkpoints.initial_weights import HANDOFF_KEY, InitialWeights, read_initial_weights, summary, training_area
from sn6.checkpoints.run_files import EO_WEIGHTS
from sn6.checkpoints.transfer import relative_change
from sn6.checkpoints.weights_file import SUFFIX, read_weights, write_weights
from sn6.data.datamodule import TileDataModule
from sn6.data.folds import bounds_of
from sn6.data.ground import Ground
from sn6.errors import UserError
from sn6.files import write_csv
from sn6.models.first_layer import Adapt
from sn6.segmenter import Segmenter

log = logging.getLogger(__name__)
REPORT, START = "handoff.csv", f"checkpoints/start{SUFFIX}"


class SARHandoff(Callback):
    """Load weights before the optimizer is made, and never when a stopped run resumes.

    Writes `handoff.csv` to the run's folder and to the loggers that take tables: for each tensor whether it was loaded,
    adapted or initialised, and after training its relative change, ‖end − start‖ / ‖start‖.

    Args:
        weights: `weights.safetensors` of an EO run, a checkpoint, published weights, a run's folder, or
            `hf://owner/name`
        adapt: rule for a first layer of other bands, see `sn6.models.first_layer.adapt_first_layer`
        reset_head: keep the initialisation of the last layers
        freeze_encoder_epochs: epochs in which the encoder is frozen
        encoder_lr: factor on the learning rate of the encoder
        allow_leakage: accept weights whose training area overlaps this run's validation or test tiles
    """

    def __init__(
        self,
        weights: str | None = None,
        adapt: Adapt | None = None,
        reset_head: bool = False,
        freeze_encoder_epochs: NonNegativeInt = 0,
        encoder_lr: NonNegativeFloat = 1.0,
        allow_leakage: bool = False,
    ) -> None:
        self.weights = weights
        self.adapt = adapt
        self.reset_head = reset_head
        self.freeze_encoder_epochs = freeze_encoder_epochs
        self.encoder_lr = encoder_lr
        self.allow_leakage = allow_leakage

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights when training starts."""
        if stage != "fit":
            return
        assert isinstance(pl_module, Segmenter)
        if self.encoder_lr != 1.0 or self.freeze_encoder_epochs:
            check_encoder(pl_module.network)
        pl_module.encoder_lr = self.encoder_lr  # the optimizer is made with it, also of a resumed run
        if self.weights is None or trainer.ckpt_path is not None:
            return
        datamodule = datamodule_of(trainer)
        given = read_initial_weights(self.weights, HANDOFF_KEY, EO_WEIGHTS)
        if not self.allow_leakage:
            check_leakage(given, datamodule)
        network = pl_module.network
        rows = given.load_into(network, datamodule.source, self.adapt, self.reset_head)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            start = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
            write_weights(folder / START, start, {})
            table = [{key: str(value) for key, value in asdict(row).items()} for row in rows]
            self._report(trainer, table)
            log.info("%s: %s; details in %s", given.where, summary(rows), REPORT)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Drop the gradients of a frozen encoder: weights and optimizer state stay, running means do not."""
        if trainer.current_epoch < self.freeze_encoder_epochs:
            for parameter in pl_module.get_submodule("network.encoder").parameters():
                parameter.grad = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the relative change of each tensor to the report."""
        folder = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or not (folder / REPORT).exists():
            return
        start, _ = read_weights(folder / START)
        changes = relative_change(start, pl_module.get_submodule("network").state_dict())
        with (folder / REPORT).open(newline="") as file:
            rows = [row | {"relative_change": f"{changes[row['tensor']]:.4f}"} for row in csv.DictReader(file)]
        self._report(trainer, rows)

    def _report(self, trainer: Trainer, rows: list[dict[str, str]]) -> None:
        columns = list(rows[0])
        write_csv(Path(trainer.default_root_dir) / REPORT, columns, [list(row.values()) for row in rows])
        log_table(trainer.loggers, "handoff", columns, [list(row.values()) for row in rows])


def check_encoder(network: nn.Module) -> None:
    """Raise a UserError unless the network has a part `encoder`, which can be frozen or learn at another rate."""
    if not isinstance(getattr(network, "encoder", None), nn.Module):
        raise UserError(
            f"{type(network).__name__} has no part named encoder for freeze_encoder_epochs and encoder_lr; "
            "leave these keys out, or name the part encoder",
            kind="conflict",
            key="callbacks.sar_handoff.encoder_lr",
        )


def check_leakage(given: InitialWeights, datamodule: TileDataModule) -> None:
    """Raise a UserError if the training area of the weights overlaps tiles that this run validates or tests on."""
    crs, about = datamodule.data_set.frame, given.metadata
    area = training_area(about, datamodule.fold, crs, None)
    if not len(area):
        log.warning("%s has no metadata about its training area; scores may be too high", given.file)
    for use, tiles in (("validation", datamodule.fold.validation), ("test", datamodule.fold.test)):
        if overlapping := int(Ground(bounds_of(tiles), crs).overlapping(area).sum()):
            raise UserError(
                f"{given.file}: its training area overlaps {overlapping} of {len(tiles)} {use} tiles of this run (it "
                f"has fold {getattr(about, 'fold', None)} of {getattr(about, 'partition', None)}, this run "
                f"fold {datamodule.fold_index} of {datamodule.partition}); use weights of this fold, or set "
                "callbacks.sar_handoff.allow_leakage=true",
                kind="leakage",
                key=HANDOFF_KEY,
                value=str(given.file),
            )


def datamodule_of(trainer: Any) -> TileDataModule:
    """Return the data of a run; Lightning sets the attribute without declaring it."""
    return trainer.datamodule
