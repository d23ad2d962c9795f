"""Pictures of a fixed set of validation tiles, of the best validation so far."""

from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from sn6.callbacks.logged_media import log_picture
from sn6.callbacks.polygon_f1 import polygon_f1_of
from sn6.callbacks.scoring import TileResult
from sn6.data.dataset import TileDataset
from sn6.datasets.layout import PRODUCTS
from sn6.footprints import describe
from sn6.plots.rendering import render_background
from sn6.plots.tile_selection import spread_by_buildings
from sn6.plots.tiles import save_figure, tile_figure


class ImageLogging(Callback):
    """Draw `figures/validation_<image id>.png` in the run's folder and log it to the loggers that take images.

    They are drawn again whenever the polygon F1 is the best so far, and after training for the best checkpoint at the
    operating point of each tile. The tiles are the same in every epoch and run: evenly spread over the validation tiles
    with buildings, by their number of buildings.

    Args:
        tiles: number of tiles
    """

    may_change: ClassVar = True  # when a run resumes

    def __init__(self, tiles: int = 4) -> None:
        self.tiles = tiles
        self.best = -1.0
        self.pictures: dict[str, Path] = {}

    def state_dict(self) -> dict[str, float]:
        """Return the F1 of the pictures."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the F1 of the pictures."""
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the tiles that this rank has evaluated."""
        polygon_f1 = polygon_f1_of(trainer)
        is_training = trainer.state.fn is TrainerFn.FITTING
        if is_training:
            if trainer.sanity_checking or polygon_f1.scores["f1"] <= self.best:
                return
            self.best = polygon_f1.scores["f1"]
            when = f"epoch {trainer.current_epoch}"
        else:
            when = "best checkpoint"
        dataset, folder = polygon_f1.dataset, Path(trainer.default_root_dir) / "figures"
        paths = {
            index: folder / f"validation_{dataset.tiles[index].image_id}.png"
            for index in choose_tiles(dataset, self.tiles)
        }
        for index, path in paths.items():
            # one rank draws a tile, also where the sampler repeats it so that all ranks have equally many
            if index in polygon_f1.results and index % trainer.world_size == trainer.global_rank:
                point = "" if is_training else f", {describe(polygon_f1.options_of(index))}"
                draw(dataset, index, polygon_f1.results[index], f"{when}{point}", path)
        trainer.strategy.barrier()  # each rank has drawn its own
        self.pictures = {f"validation/{dataset.tiles[index].image_id}": path for index, path in paths.items()}
        log_pictures(trainer)


def log_pictures(trainer: Any) -> None:
    """Log the pictures that were drawn last; the first rank does."""
    drawn = [callback.pictures for callback in trainer.callbacks if isinstance(callback, ImageLogging)]
    if trainer.is_global_zero:
        for key, path in (item for pictures in drawn for item in pictures.items()):
            if path.exists():
                log_picture(trainer.loggers, key, path, trainer.global_step)


def choose_tiles(dataset: TileDataset, number: int) -> list[int]:
    """Return the indices of the tiles to draw, from many buildings to few."""
    return spread_by_buildings([len(dataset.labels(index)) for index in range(len(dataset))], number)


def draw(dataset: TileDataset, index: int, result: TileResult, when: str, path: Path) -> None:
    """Draw one tile in its own frame, north up."""
    tile, source = dataset.tiles[index], dataset.source
    image, valid = dataset.archive.read(tile, source.product, source.bands)
    names = [PRODUCTS[source.product].bands[band - 1] for band in source.bands]
    picture = render_background(image, valid, names)
    orientation = None if PRODUCTS[source.product].optical else tile.orientation
    title = f"{tile.image_id}, {when}"
    figure = tile_figure(picture, result.truth, result.footprints.polygons, result.match, title, orientation)
    save_figure(figure, path)
