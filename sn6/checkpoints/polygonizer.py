"""Build the polygonizer that a config, a checkpoint or a metrics.json describes."""

from collections.abc import Mapping
from dataclasses import fields
from inspect import isclass
from typing import Any

from sn6.cli import check_arguments
from sn6.config.targets import import_target
from sn6.errors import UserError
from sn6.footprints.polygonizer import Polygonizer
from sn6.footprints.threshold import Threshold

OWN = "sn6.footprints."


def target_of(values: Mapping[str, Any]) -> str:
    """Return the `_target_` of a polygonizer; files of older versions have none, and the fields of a threshold."""
    return str(values.get("_target_", f"{Threshold.__module__}.{Threshold.__qualname__}"))


def is_own_polygonizer(values: Mapping[str, Any]) -> bool:
    """Return whether a polygonizer is one of sn6."""
    return target_of(values).startswith(OWN)


def polygonizer_class(values: Mapping[str, Any], where: str) -> type[Polygonizer]:
    """Return the class of a polygonizer; arguments of `build_polygonizer`.

    Raises:
        UserError: it cannot be imported, or is no polygonizer
    """
    name = target_of(values)
    target = import_target(name, where)
    if not (isclass(target) and issubclass(target, Polygonizer)):
        raise UserError(
            f"{where}._target_={name} is no subclass of sn6.footprints.polygonizer.Polygonizer; derive it from that "
            "class",
            kind="invalid_value",
            key=f"{where}._target_",
            value=name,
        )
    return target


def build_polygonizer(values: Mapping[str, Any], where: str) -> Polygonizer:
    """Build a polygonizer; fields that are left out have their defaults.

    Args:
        values: `_target_` and fields
        where: node or key, for messages

    Raises:
        UserError: the class cannot be imported or is no polygonizer, a field is unknown, or a value is out of range
    """
    target = polygonizer_class(values, where)
    given = {key: value for key, value in values.items() if key != "_target_"}
    _, errors = check_arguments(target, given, f"{where}.", strict=True)
    if errors:
        raise errors[0]
    try:
        return target(**given)
    except UserError as error:  # of fields that do not fit one another
        message, key = f"{where}: {error}", f"{where}.{error.key}"
        raise UserError(message, kind=error.kind, key=key, value=error.value) from None


def field_values(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return `_target_` and fields of the polygonizer in the `operating_point` of a metrics.json."""
    names = {"_target_", *(one.name for one in fields(polygonizer_class(metrics, "operating_point")))}
    return {key: value for key, value in metrics.items() if key in names}
