"""Make the data set that a config describes.

The node `data` of a config has the arguments of two classes beside each other: those of `data.dataset._target_`, which
say what is on disk, and those of the LightningDataModule, which say how samples are made from it.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from sn6.config.targets import import_target, make_object
from sn6.datasets.declaration import DataSet
from sn6.errors import UserError

NODE = "dataset"
SPACENET6 = {"_target_": "sn6.datasets.spacenet6.SpaceNet6"}  # of runs of sn6 0.3 and before


def data_set_node(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and arguments of the data set.

    Args:
        data: the node `data` of a config

    Raises:
        UserError: the class cannot be imported, or is no data set
    """
    target = dict(data.get(NODE) or SPACENET6)
    made = import_target(target["_target_"], f"data.{NODE}")
    if not (isinstance(made, type) and issubclass(made, DataSet)):
        raise UserError(
            f"data.{NODE}._target_={target['_target_']} is no subclass of sn6.datasets.declaration.DataSet; derive it "
            "from that class",
            kind="invalid_value",
            key=f"data.{NODE}._target_",
            value=target["_target_"],
        )
    parameters = signature(made).parameters
    return target | {key: value for key, value in data.items() if key in parameters}


def module_node(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and arguments of the LightningDataModule; those of the data set are left out."""
    of_data_set = data_set_node(data)
    return {key: value for key, value in data.items() if key == "_target_" or key not in {NODE, *of_data_set}}


def open_data_set(data: Mapping[str, Any]) -> DataSet:
    """Make the data set; arguments and errors of `data_set_node`, and errors of its class."""
    made: DataSet = make_object(data_set_node(data), f"data.{NODE}")
    return made
