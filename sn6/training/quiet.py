"""What libraries print and raise in a training, reduced to what a user needs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sn6.errors import UserError


@contextmanager
def lightning_errors() -> Iterator[None]:
    """Turn what Lightning raises about its arguments into a UserError."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}", kind="invalid_value", key="trainer") from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what libraries print about themselves, and advice that does not apply here."""
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
            ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
            ".*Experiment logs directory .* exists and is not empty.*",  # config.yaml is there already
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
