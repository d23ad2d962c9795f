"""A radar run that starts from the weights of an optical one."""

import csv
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from pydantic import NonNegativeFloat, NonNegativeInt
from rich.console import Console
from rich.table import Table

from sn6.callbacks.logged_media import log_table
from sn6.checkpoints.initial_weights import InitialWeights, count_overlapping, read_initial_weights, training_area
from sn6.checkpoints.run_files import EO_WEIGHTS
from sn6.checkpoints.transfer import Adapt, relative_change
from sn6.checkpoints.weights_file import SUFFIX, read_weights, write_weights
from sn6.data.datamodule import TileDataModule
from sn6.errors import UserError
from sn6.files import write_csv
from sn6.segmenter import Segmenter

log = logging.getLogger(__name__)
REPORT, START = "handoff.csv", f"start{SUFFIX}"


class SARHandoff(Callback):
    """Loads weights before the optimizer is made, and never when a stopped run goes on.

    Leaves `handoff.csv` in the run's folder, on screen and with the loggers that take tables: what became of each
    tensor, and at the end of training how far it moved from where it started.

    Args:
        weights: `weights.safetensors` of an optical run, a checkpoint, published weights, or a run's folder
        adapt: rule for a first layer of other bands, see `sn6.checkpoints.transfer.adapted_layer`
        reset_head: leave the last layers as they start
        freeze_encoder_epochs: epochs in which the encoder does not learn
        encoder_lr: factor on the learning rate of the encoder
        allow_seen_ground: take weights that were trained on ground that this run validates or tests on
    """

    def __init__(
        self,
        weights: str | None = None,
        adapt: Adapt | None = None,
        reset_head: bool = False,
        freeze_encoder_epochs: NonNegativeInt = 0,
        encoder_lr: NonNegativeFloat = 1.0,
        allow_seen_ground: bool = False,
    ) -> None:
        self.weights = weights
        self.adapt = adapt
        self.reset_head = reset_head
        self.freeze_encoder_epochs = freeze_encoder_epochs
        self.encoder_lr = encoder_lr
        self.allow_seen_ground = allow_seen_ground

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hands the weights over, where a training begins."""
        if stage != "fit":
            return
        assert isinstance(pl_module, Segmenter)
        pl_module.encoder_lr = self.encoder_lr  # the optimizer is made with it, also of a run that goes on
        if self.weights is None or trainer.ckpt_path is not None:
            return
        datamodule = datamodule_of(trainer)
        given = read_initial_weights(self.weights, "callbacks.sar_handoff.weights", EO_WEIGHTS)
        if not self.allow_seen_ground:
            refuse_seen_ground(given, datamodule)
        network = pl_module.network
        rows = given.fit_into(network, datamodule.source, self.adapt, self.reset_head)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            start = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
            write_weights(folder / "checkpoints" / START, start, {"handed_over_from": self.weights})
            table = [{key: str(value) for key, value in asdict(row).items()} for row in rows]
            self._report(trainer, table, f"handed over from {self.weights}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """A frozen encoder has no gradients: its weights and the optimizer's memory stay, running means do not."""
        if trainer.current_epoch < self.freeze_encoder_epochs:
            for parameter in pl_module.get_submodule("network.encoder").parameters():
                parameter.grad = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds to the report how far each tensor moved."""
        folder = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or not (folder / REPORT).exists():
            return
        start, _ = read_weights(folder / "checkpoints" / START)
        distances = relative_change(start, pl_module.get_submodule("network").state_dict())
        with (folder / REPORT).open(newline="") as file:
            rows = [row | {"moved": f"{distances[row['tensor']]:.4f}"} for row in csv.DictReader(file)]
        self._report(trainer, rows, "moved in training, ‖end − start‖ / ‖start‖")

    def _report(self, trainer: Trainer, rows: list[dict[str, str]], title: str) -> None:
        columns = list(rows[0])
        write_csv(Path(trainer.default_root_dir) / REPORT, columns, [list(row.values()) for row in rows])
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*row.values())
        Console(stderr=True).print(table)
        log_table(trainer.loggers, "handoff", columns, [list(row.values()) for row in rows])


def refuse_seen_ground(given: InitialWeights, datamodule: TileDataModule) -> None:
    """Raises a UserError where the weights were trained on ground that this run validates or tests on."""
    ground = training_area(given.card, datamodule.fold, None)
    if not len(ground):
        log.warning("%s does not tell the ground that it was trained on; scores may be too good", given.file)
    for use, tiles in (("validation", datamodule.fold.validation), ("test", datamodule.fold.test)):
        if seen := count_overlapping(tiles, ground):
            raise UserError(
                f"{given.file} was trained on ground of {seen} of {len(tiles)} {use} tiles of this run (its fold is "
                f"{given.card.get('fold')} of {given.card.get('split', 'columns')}, this one {datamodule.fold_index} "
                f"of {datamodule.split}); take weights of this fold, or set "
                "callbacks.sar_handoff.allow_seen_ground=true"
            )


def datamodule_of(trainer: Any) -> TileDataModule:
    """The data of a run; Lightning sets it without declaring it."""
    return trainer.datamodule
