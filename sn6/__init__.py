"""sn6: building footprints from radar, an experiment framework for SpaceNet 6."""

import os
from importlib import import_module
from typing import Any

__version__ = "0.3.0"  # also the version of the distribution, see pyproject.toml

# GDAL reads these when rasterio is first imported. Its block cache is otherwise 5% of the memory in every
# worker of every rank, and it lists a tile's folder (3401 files) whenever it opens one. EMPTY_DIR would not list it
# either, but hides the sidecar files (.aux.xml, .msk, .tfw), and with them the CRS, nodata and masks.
os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "TRUE")
os.environ.setdefault("GDAL_NUM_THREADS", "1")
os.environ.setdefault("GDAL_CACHEMAX", "64")

PYTHON = {"load": "trained_model", "evaluate": "evaluation"}  # function → its module, imported when it is first used


def __getattr__(name: str) -> Any:
    """Return `sn6.load` or `sn6.evaluate`."""
    if name not in PYTHON:
        raise AttributeError(f"module 'sn6' has no attribute {name!r}")
    return getattr(import_module(f"sn6.{PYTHON[name]}"), name)
