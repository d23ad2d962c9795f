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

NODE, TARGET = "dataset", "_target_"
SPACENET6 = {TARGET: "sn6.datasets.spacenet6.SpaceNet6"}  # of runs of sn6 0.3 and before


def data_set_node(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and arguments of the data set.

    Args:
        data: the node `data` of a config

    Raises:
        UserError: the class cannot be imported, or is no data set
    """
    target = dict(data.get(NODE) or SPACENET6)
    parameters = signature(data_set_class(target[TARGET], f"data.{NODE}.{TARGET}")).parameters
    return target | {key: value for key, value in data.items() if key in parameters}


def data_set_class(name: str, key: str) -> type[DataSet]:
    """Return the class of a data set by its name, such as "my_package.MyData".

    Args:
        name: module and class
        key: the option that gives it, for messages

    Raises:
        UserError: it cannot be imported, or is no data set
    """
    made = import_target(name, key.removesuffix(f".{TARGET}"))
    if not (isinstance(made, type) and issubclass(made, DataSet)):
        raise UserError(
            f"{key}={name} is no subclass of sn6.datasets.declaration.DataSet; derive it from that class",
            kind="invalid_value",
            key=key,
            value=name,
        )
    return made


def path_keys(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a config that say where the data set is, that of the images first; errors of
    `data_set_class`.
    """
    target = dict(data.get(NODE) or SPACENET6)[TARGET]
    return tuple(f"data.{name}" for name in data_set_class(target, f"data.{NODE}.{TARGET}").path_keys)


def module_node(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and arguments of the LightningDataModule; those of the data set are left out."""
    of_data_set = data_set_node(data)
    return {key: value for key, value in data.items() if key == TARGET or key not in {NODE, *of_data_set}}


def open_data_set(data: Mapping[str, Any]) -> DataSet:
    """Make the data set; arguments and errors of `data_set_node`, and errors of its class."""
    made: DataSet = make_object(data_set_node(data), f"data.{NODE}")
    return made
