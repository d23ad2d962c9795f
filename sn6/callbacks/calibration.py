"""Choose the fields of the polygonizer on the validation tiles, after training."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.profilers import PassThroughProfiler
from pydantic import Field

from sn6.callbacks.operating_point import Choice
from sn6.callbacks.point_search import PointSearch
from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.callbacks.scoring import ScoringThread, maps_of_batch
from sn6.checkpoints.torch_file import read_torch_file
from sn6.data.cross_fitting import cross_fit
from sn6.data.folds import bounds_of
from sn6.errors import counted

log = logging.getLogger(__name__)


class Calibration(Callback):
    """Score the validation tiles with the best network at several operating points, and keep the best one.

    It is the operating point of all results: of test tiles, pictures, tables and files, and, stored with the best
    checkpoint, of `sn6.predict`. The validation tiles themselves are scored at points that were chosen elsewhere: each
    half of them at the best point of the other half, see `sn6.data.cross_fitting.cross_fit`. Validations while training
    keep the values of the config.

    Points are compared as `PointSearch` does; what is reported is the polygon F1 at the chosen points.

    Args:
        candidates: field of the polygonizer → values, all of whose combinations are tried; None tries the
            polygonizer's own, coarse to fine
    """

    def __init__(
        self,
        candidates: Annotated[
            Mapping[str, Annotated[Sequence[float], Field(min_length=1)]] | None, Field(min_length=1)
        ] = None,
    ) -> None:
        self.given = candidates
        self.search: PointSearch | None = None
        self.choice: Choice | None = None

    @property
    def is_refining(self) -> bool:
        """Return whether the current pass is the finer one."""
        return self.search is not None and self.search.is_refining

    def on_predict_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Start a pass over the tiles."""
        assert self.search is not None
        self.search.start_pass()
        self.table = self.search.table
        self.thread = ScoringThread(self.search.score)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Queue the tiles of a batch."""
        for index, maps, valid in maps_of_batch(outputs, batch):
            self.thread.submit(index, maps, valid)
        self._record()

    def _record(self, wait: bool = False) -> None:
        for index, counts in self.thread.results(wait):
            self.table.enter(index, counts)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pool the counts over ranks."""
        self._record(wait=True)
        self.table.to(pl_module.device).compute()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Score no more tiles."""
        if hasattr(self, "thread"):
            self.thread.cancel()


def keep_config(reason: str) -> None:
    """Print why nothing was calibrated."""
    rank_zero_only(log.warning)("the fields of polygons stay: %s", reason)


def calibrate(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str | None) -> Choice | None:
    """Calibrate with the network at `best`, or with the segmenter as it is where that is None.

    Returns:
        None where there is no such callback, or the config's values stay.
    """
    callback = next((one for one in trainer.callbacks if isinstance(one, Calibration)), None)
    if callback is None:
        return None
    tiles = datamodule.validation_tiles.tiles[: datamodule.scored_tiles("val")]
    halves = cross_fit(bounds_of(tiles))
    if halves is None:
        keep_config(f"{counted(len(tiles), 'validation tile')} cannot be cut into halves without common ground")
        return None
    polygon_f1, profiler = polygon_f1_of(trainer), trainer.profiler

    def predict() -> None:
        trainer.predict(segmenter, datamodule=datamodule, return_predictions=False, ckpt_path=best)
        trainer.profiler = PassThroughProfiler()  # torch's fails in a second pass

    callback.search = PointSearch(datamodule.validation_tiles, halves, callback.given)
    callback.choice = callback.search.choose(predict, polygon_f1.polygonizer)
    trainer.profiler = profiler
    if callback.choice is None:
        keep_config(f"no candidate matches a building of {counted(len(tiles), 'validation tile')}")
    else:
        polygon_f1.polygonizer, polygon_f1.cross_fitted = (
            callback.choice.point.polygonizer,
            callback.choice.cross_fitted,
        )
    return callback.choice


def validate_calibrated(trainer: Any, segmenter: LightningModule, datamodule: Any, best: str) -> None:
    """Validate the network at `best` at the operating points of the tiles, and write them to that checkpoint.

    Nothing is logged: the `val/...` of the training, which chose the epoch, stay the only points of their curves.
    """
    loggers, trainer.loggers = trainer.loggers, []
    profiler, trainer.profiler = trainer.profiler, PassThroughProfiler()  # torch's fails in a second validation
    trainer.validate(segmenter, datamodule, ckpt_path=best, verbose=False)
    trainer.loggers, trainer.profiler = loggers, profiler
    if trainer.is_global_zero:
        checkpoint, polygon_f1 = read_torch_file(Path(best)), polygon_f1_of(trainer)
        checkpoint["callbacks"][polygon_f1.state_key] |= polygon_f1.state_dict()
        trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, best)
    trainer.strategy.barrier()
