"""Say at the end of an EO run how SAR runs start from its weights."""

import logging
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from sn6.callbacks.sar_handoff import datamodule_of
from sn6.checkpoints.initial_weights import HANDOFF_KEY
from sn6.segmenter import Segmenter

log = logging.getLogger(__name__)


class EOPretraining(Callback):
    """Print the options of a SAR run that starts from the `weights.safetensors` of this EO run.

    They name the fold: validation tiles of any other one overlap the training area of the weights, and `SARHandoff`
    refuses them. A stage of a run prints nothing, as the config of the next stage names its weights.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line, once."""
        assert isinstance(pl_module, Segmenter)
        if trainer.is_global_zero and not is_stage(pl_module.hparams["config"]):
            datamodule = datamodule_of(trainer)
            log.info(
                "%-10sdata=sar data.partition=%s data.fold=%d %s=%s",
                "for SAR",
                datamodule.partition,
                datamodule.fold_index,
                HANDOFF_KEY,
                Path(trainer.default_root_dir),
            )


def is_stage(config: Any) -> bool:
    """Return whether a config is that of one of several stages."""
    return bool(config["run_folder"] != config["folder"])
