"""Send pictures and tables to the loggers that can show them."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from sn6.plots.layers import CLASSES, Layers

MAX_BYTES = 200_000  # of a picture for W&B


def log_picture(loggers: Sequence[Logger], key: str, path: Path, step: int) -> None:
    """Log a PNG to the loggers that show pictures; to W&B, which uploads it, as a JPEG of at most MAX_BYTES."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            with TemporaryDirectory() as folder:
                logger.log_image(key, [str(write_small(path, Path(folder)))], step=step)
        elif isinstance(logger, TensorBoardLogger):
            from matplotlib.image import imread

            logger.experiment.add_image(key, imread(path), step, dataformats="HWC")


def write_small(path: Path, folder: Path) -> Path:
    """Write a picture as a JPEG of at most MAX_BYTES to `folder`, with fewer pixels where it needs that."""
    from PIL import Image

    with Image.open(path) as opened:
        picture: Any = opened.convert("RGB")
    small = folder / f"{path.stem}.jpg"
    while True:
        picture.save(small, quality=75)
        if small.stat().st_size <= MAX_BYTES:
            return small
        picture = picture.resize([max(round(0.85 * side), 1) for side in picture.size], Image.Resampling.LANCZOS)


def log_layers(loggers: Sequence[Logger], key: str, layers: Layers, step: int) -> None:
    """Log the image of a tile to W&B, with masks that are switched on and off there."""
    masks = {name: {"mask_data": mask, "class_labels": CLASSES[name]} for name, mask in layers.masks.items()}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [layers.picture], step=step, masks=[masks], file_type=["jpg"])


def log_table(loggers: Sequence[Logger], key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table to the loggers that show tables."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join(f"| {' | '.join(str(value) for value in line)} |" for line in lines)
            logger.experiment.add_text(key, text)
