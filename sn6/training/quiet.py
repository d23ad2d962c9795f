"""What libraries print and raise in a training, reduced to what a user needs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sn6.errors import UserError, first_line


@contextmanager
def lightning_errors() -> Iterator[None]:
    """Turn what Lightning raises about its arguments into a UserError."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}", kind="invalid_value", key="trainer") from None
    except RuntimeError as error:
        if str(error).startswith("Early stopping conditioned on"):
            raise UserError(f"callbacks: {first_line(error)}", kind="unknown_value", key="callbacks") from None
        if "loading state_dict" not in str(error):
            raise
        raise UserError(
            f"the checkpoint of this run does not fit its network, whose code has changed "
            f"({' '.join(str(error).split())}); restore the code, choose another name=, or set resume=false",
            kind="mismatch",
            key="name",
        ) from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what libraries print about themselves, and advice that does not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric", "timm"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*GPU available but not used.*",  # trainer.accelerator=cpu was chosen
            ".*does not have many workers.*",  # two processes feed two cores
            ".*sync_dist=True.*",  # the table of tiles is the same on all ranks already
            ".*is smaller than the logging interval.*",
            ".*PyTorch Profiler default schedule.*",  # a short run
            ".*no geotransform.*",  # masks are pixels; rasterio's own filter does not hold beside another thread
            ".*lr_scheduler.step.* before .*optimizer.step.*",  # 16-mixed skips steps until its scale fits
            ".*isinstance.treespec, LeafSpec.*",  # Lightning's own
            ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
