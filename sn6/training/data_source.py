"""The data set that the keys of a command name: an archive, a folder of images, or what a run was trained on.

The classes are imported when one is opened, so that commands with a wrong key answer at once.
"""

from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from sn6.datasets.radar_units import UnitName
from sn6.errors import UserError
from sn6.training.saved_config import CONFIG_FILE, saved_config

if TYPE_CHECKING:
    from sn6.datasets.declaration import DataSet


@dataclass(frozen=True)
class DataSource:
    """Keys that name a data set; those that are given are arguments of its class, as in `data` of a config."""

    root: Annotated[Path | None, "folder of the archive of SpaceNet 6, or of the data set of dataset="] = None
    images: Annotated[
        str | list[str] | None, "instead of root=: a folder of GeoTIFFs, a pattern, files, addresses, or a list of them"
    ] = None
    run: Annotated[Path | None, "instead of both: folder of a run, for the data that it was trained on"] = None
    labels: Annotated[
        Path | None, "of images=: a vector file of buildings, or a folder with one of the same stem for each image"
    ] = None
    where: Annotated[str | None, "of labels=: condition on the attributes, such as 'height > 2'"] = None
    height: Annotated[str | None, "of labels=: attribute with the height in m"] = None
    category: Annotated[str | None, "of labels=: attribute with the class"] = None
    classes: Annotated[list[str] | None, "of labels=: classes of category= that are buildings; null is all"] = None
    area: Annotated[Path | None, "of images=: polygons of the ground where the labels are complete"] = None
    pixel_size: Annotated[PositiveFloat | None, "of images=, m: resamples while reading; null is their own"] = None
    tile_size: Annotated[PositiveInt | None, "of images=, pixels: largest edge of the tiles; null is 1024"] = None
    sensor: Annotated[Literal["radar", "optical"] | None, "of images=; null is radar"] = None
    band_names: Annotated[list[str] | None, "of images=: null is their descriptions, or band1, band2, ..."] = None
    units: Annotated[UnitName | None, "of images=: db, power, amplitude or dn; null is db"] = None
    scale: Annotated[float | None, Field(gt=0), "of images=: factor of the values, before the logarithm"] = None
    offset: Annotated[float | None, "of images=, dB: calibration constant, after the logarithm"] = None
    nodata_value: Annotated[float | None, "of images=: value without data besides what the files declare"] = None
    look_directions: Annotated[Path | None, "of images=: CSV with the columns image and direction"] = None
    dataset: Annotated[str | None, "class of the data set; null is SpaceNet6 for root=, Folder for images="] = None

    def open(self) -> "DataSet":
        """Return the data set.

        Raises:
            UserError: none is named, or two are, or a key is not one of its class; errors of this class
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: as_plain(value) for name, value in given.items() if value is not None}
        named = [name for name in ("root", "images", "run") if name in given]
        if not named:
            raise UserError(
                "missing root=..., images=... or run=...; name an archive, images, or a run",
                kind="missing_value",
                key="root",
            )
        others = sorted(given.keys() - {named[0]}, key=list(given).index)
        if self.run is not None and others:
            raise conflict(others[0], named[0])
        if self.run is not None:
            from sn6.datasets.from_config import open_data_set

            return open_data_set(run_config(self.run)["data"])
        made = self._class()
        unknown = [name for name in given if name not in signature(made).parameters and name != "dataset"]
        if unknown:
            raise conflict(unknown[0], "dataset" if self.dataset else named[-1])
        given.pop("dataset", None)
        return made(**given)

    def _class(self) -> "type[DataSet]":
        if self.dataset is not None:
            from sn6.datasets.from_config import data_set_class

            return data_set_class(self.dataset, "dataset")
        from sn6.datasets.folder import Folder
        from sn6.datasets.spacenet6 import SpaceNet6

        return SpaceNet6 if self.images is None else Folder


def as_plain(value: Any) -> Any:
    """Return a value as a config has it: paths are text."""
    return str(value) if isinstance(value, Path) else value


def conflict(key: str, named: str) -> UserError:
    """Return the error of a key that does not belong to the data set that `named` names."""
    return UserError(f"{key}= does not go with {named}=; leave out one of them", kind="conflict", key=key)


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    return any(path.exists() for path in (folder / CONFIG_FILE, *folder.glob(f"*/{CONFIG_FILE}")))


def run_config(run: Path) -> dict[str, Any]:
    """Return the config of a run, or of its last stage.

    Raises:
        UserError: it is no folder of a run, or its config is broken
    """
    stages = [path.parent for path in sorted(run.glob(f"*/{CONFIG_FILE}"), key=lambda path: path.stat().st_mtime)]
    config = saved_config(stages[-1] if stages else run)
    if not config:
        raise UserError(f"{run} is no folder of a run: it has no {CONFIG_FILE}", kind="not_found", key="run", value=run)
    return config
