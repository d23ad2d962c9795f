"""Pictures of a fixed set of validation tiles, of the best validation so far."""

from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import NonNegativeInt

from sn6.callbacks.logged_media import log_layers, log_picture
from sn6.callbacks.polygon_f1 import dataset_of, polygon_f1_of
from sn6.callbacks.scoring import TileResult
from sn6.data.dataset import TileDataset
from sn6.metrics.ranks import gather_by_tile
from sn6.plots.layers import Layers, compute_layers
from sn6.plots.maps import Maps, rotate_maps
from sn6.plots.proposals import tile_figure
from sn6.plots.rendering import render_background
from sn6.plots.tile_selection import spread_by_buildings
from sn6.plots.tiles import TileView, save_figure


class ImageLogging(Callback):
    """Draw `figures/validation_<image id>.png` in the run's folder and log it to the loggers that take images.

    A picture has the ground truth, the proposals and their matches, each building in a colour of its own with merged
    and split ones marked, and the maps of all heads. W&B gets the image with ground truth and proposals as masks too,
    which are switched on and off there.

    They are drawn again whenever the polygon F1 is the best so far, and after training for the best checkpoint at the
    operating point of each tile. The tiles are the same in every epoch and run: evenly spread over the validation tiles
    with buildings, by their number of buildings.

    Args:
        tiles: number of tiles
    """

    may_change: ClassVar = True  # when a run resumes

    def __init__(self, tiles: NonNegativeInt = 4) -> None:
        self.tiles = tiles
        self.best = -1.0
        self.pictures: dict[str, Path] = {}
        self.layers: dict[str, Layers] = {}  # of the same tiles
        self.chosen: list[int] = []  # indices of the tiles
        self.maps: dict[int, Maps] = {}  # of the tiles of this pass, on this rank, in the sensor's frame

    def state_dict(self) -> dict[str, float]:
        """Return the F1 of the pictures."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the F1 of the pictures."""
        self.best = state_dict["best"]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the tiles."""
        self.chosen, self.maps = choose_tiles(dataset_of(trainer.val_dataloaders), self.tiles), {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the maps of the tiles that are drawn."""
        for i, index in enumerate(batch["index"].tolist()):
            if index in self.chosen:
                maps = outputs["maps"].items()
                self.maps[index] = {name: values[i].float().cpu().numpy() for name, values in maps}

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
        paths = {index: folder / f"validation_{dataset.tiles[index].image_id}.png" for index in self.chosen}
        layers = {}
        for index, path in paths.items():
            # one rank draws a tile, also where the sampler repeats it so that all ranks have equally many
            if index in polygon_f1.results and index % trainer.world_size == trainer.global_rank:
                point = "" if is_training else f", {polygon_f1.polygonizer_of(index)}"
                layers[index] = draw(
                    dataset, index, polygon_f1.results[index], self.maps[index], f"{when}{point}", path
                )
        layers = gather_by_tile(layers)  # each rank has drawn its own
        names = {index: dataset.tiles[index].image_id for index in self.chosen}
        self.pictures = {f"validation/{names[index]}": path for index, path in paths.items()}
        self.layers = {f"validation_masks/{names[index]}": tile for index, tile in layers.items()}
        log_pictures(trainer)


def log_pictures(trainer: Any) -> None:
    """Log the pictures that were drawn last; the first rank does."""
    for callback in trainer.callbacks if trainer.is_global_zero else ():
        if isinstance(callback, ImageLogging):
            for key, path in callback.pictures.items():
                if path.exists():
                    log_picture(trainer.loggers, key, path, trainer.global_step)
            for key, layers in callback.layers.items():
                log_layers(trainer.loggers, key, layers, trainer.global_step)


def choose_tiles(dataset: TileDataset, number: int) -> list[int]:
    """Return the indices of the tiles to draw, from many buildings to few."""
    return spread_by_buildings([len(dataset.labels(index)) for index in range(len(dataset))], number)


def draw(dataset: TileDataset, index: int, result: TileResult, maps: Maps, when: str, path: Path) -> Layers:
    """Draw one tile in its own frame, north up, and return its layers."""
    tile, source = dataset.tiles[index], dataset.source
    image, valid = dataset.data_set.read(tile, source.product.name, source.bands)
    picture = render_background(image, valid, source.band_names)
    orientation = None if source.product.optical else tile.orientation
    title = f"{tile.image_id}, {when}"
    maps = rotate_maps(maps) if dataset.is_rotated(index) else maps
    view = TileView(picture, source.product.grid, title, orientation)
    figure = tile_figure(view, result.truth, result.footprints.polygons, result.match, maps)
    save_figure(figure, path)
    return compute_layers(picture, result.truth, result.footprints.polygons, result.match)
