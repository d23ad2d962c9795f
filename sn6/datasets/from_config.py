"""Make the data sets that a config describes.

The node `data` of a config has the arguments of two classes beside each other: those of `data.dataset._target_`, which
say what is on disk, and those of the LightningDataModule, which say how samples are made from it. A node of
`data.further` is like it; what it lacks of the latter is that of `data`.
"""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from sn6.config.targets import import_target, make_object
from sn6.datasets.declaration import DataSet
from sn6.errors import UserError

NODE, FURTHER, WEIGHT, TARGET = "dataset", "further", "weight", "_target_"
OWN_KEYS = ("product", "bands", "mean", "std")  # of the LightningDataModule, which further data do not take from `data`
FURTHER_KEYS = (*OWN_KEYS, "partition", "fold", "prefer_buildings", "orient", "nodata", "min_area")  # may be their own
MISSING = "???"  # of a key without a value, as OmegaConf writes it
SPACENET6 = {TARGET: "sn6.datasets.spacenet6.SpaceNet6"}  # of runs of sn6 0.3 and before


def data_set_node(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and arguments of the data set.

    Args:
        data: the node `data` of a config

    Raises:
        UserError: the class cannot be imported, or is no data set, or an argument is missing that it needs
    """
    target = named_data_set(data)
    parameters = signature(data_set_class(target[TARGET], f"data.{NODE}.{TARGET}")).parameters
    node = target | {key: value for key, value in data.items() if key in parameters}
    for name, parameter in parameters.items():
        is_needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if is_needed and node.get(name, MISSING) == MISSING:
            raise UserError(
                f"data.{name} is missing, which {target[TARGET].rpartition('.')[2]} needs; set data.{name}=...",
                kind="missing_value",
                key=f"data.{name}",
            )
    return node


def named_data_set(data: Mapping[str, Any], key: str = f"data.{NODE}") -> dict[str, Any]:
    """Return the node `dataset` of a config as it is given; raise a UserError if it names no class.

    Args:
        data: the node `data` of a config
        key: of the node `dataset`, for messages
    """
    node = data.get(NODE) or SPACENET6
    if not (isinstance(node, Mapping) and isinstance(node.get(TARGET), str)):
        raise UserError(
            f"invalid {key}={node}: it names no class; choose data=NAME, or write {TARGET}: MODULE.CLASS into its file",
            kind="invalid_value",
            key=key,
            value=node,
        )
    return dict(node)


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
    target = named_data_set(data)[TARGET]
    return tuple(f"data.{name}" for name in data_set_class(target, f"data.{NODE}.{TARGET}").path_keys)


def module_node(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and arguments of the LightningDataModule; those of the data set are left out."""
    of_data_set = data_set_node(data)
    others = {NODE, FURTHER, *of_data_set} - {"_target_"}
    return {key: value for key, value in data.items() if key not in others}


def further_nodes(data: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], float]]:
    """Return a node like `data` for each of the further data by its name, and how many crops for each one of `data`.

    Raises:
        UserError: a node names no data set, or has a key that all data share
    """
    shared = {key: value for key, value in module_node(data).items() if key not in (*OWN_KEYS, "test_column")}
    result = {}
    further = data.get(FURTHER) or {}
    if not isinstance(further, Mapping):
        message = f"invalid data.{FURTHER}={further}: input should be a valid dictionary"
        raise UserError(message, kind="invalid_value", key=f"data.{FURTHER}", value=further)
    for name, given in further.items():
        key, node = f"data.{FURTHER}.{name}", dict(given) if isinstance(given, Mapping) else {}
        if NODE not in node:
            raise UserError(
                f"{key} names no data set; add one by +data@{key}=folder, or another file of conf/data/",
                kind="missing_value",
                key=f"{key}.{NODE}",
            )
        weight = node.pop(WEIGHT, 1.0)
        if isinstance(weight, bool) or not (isinstance(weight, int | float) and 0 < weight < math.inf):
            raise UserError(
                f"invalid {key}.{WEIGHT}={weight}: must be a number above 0",
                kind="invalid_value",
                key=f"{key}.{WEIGHT}",
                value=weight,
            )
        class_name = named_data_set(node, f"{key}.{NODE}")[TARGET]
        known = [WEIGHT, *signature(import_target(class_name, f"{key}.{NODE}")).parameters, *FURTHER_KEYS]
        for unknown in sorted(node.keys() - {NODE, *known}):
            raise UserError(
                f"unknown key '{key}.{unknown}'; its keys: {', '.join(known)}",
                kind="unknown_key",
                key=f"{key}.{unknown}",
            )
        result[str(name)] = (shared | node, float(weight))
    return result


def open_data_set(data: Mapping[str, Any]) -> DataSet:
    """Make the data set; arguments and errors of `data_set_node`, and errors of its class."""
    made: DataSet = make_object(data_set_node(data), f"data.{NODE}")
    return made
