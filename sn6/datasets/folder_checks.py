"""Check that the images of a folder agree, and that their labels have the listed classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sn6.datasets.image_files import ImageHeader
from sn6.errors import UserError

MAX_SHOWN = 20  # classes in a message


def check_agreement(headers: Sequence[ImageHeader]) -> None:
    """Raise a UserError where images have other numbers of bands, descriptions or pixel sizes than the first."""
    first = headers[0]
    for other in headers[1:]:
        for what, one, two in (
            ("bands", len(first.bands), len(other.bands)),
            ("descriptions of bands", first.names, other.names),
            ("a pixel size of", round(first.grid.pixel_size, 4), round(other.grid.pixel_size, 4)),
        ):
            if one != two:
                advice = "set data.pixel_size" if what.startswith("a pixel") else "give images of one product"
                raise UserError(
                    f"{other.path} has {what} {two}, but {first.path} has {one}; {advice}",
                    kind="conflict",
                    key=other.path,
                    value=two,
                )


def check_names(names: Sequence[str], header: ImageHeader) -> None:
    """Raise a UserError unless there is one name for each band."""
    if len(names) != len(header.bands) or len(set(names)) != len(names):
        raise UserError(
            f"invalid data.band_names={list(names)}: {header.path} has {len(header.bands)} bands, each with a name",
            kind="invalid_value",
            key="data.band_names",
            value=list(names),
        )


def check_category(category: str | None, classes: Sequence[str | int] | None) -> None:
    """Raise a UserError where the attribute of the class or the list of classes is missing, or a class is repeated."""
    if (category is None) != (not classes):
        given, missing = (
            ("data.category", "data.classes") if category is not None else ("data.classes", "data.category")
        )
        raise UserError(
            f"{given} needs {missing}: the attribute of the labels with the class, and the list of classes; set both",
            kind="missing_value",
            key=missing,
        )
    if classes and len({str(name) for name in classes}) < len(classes):
        raise UserError(
            f"invalid data.classes={list(classes)}: a class is given twice; list each once",
            kind="invalid_value",
            key="data.classes",
            value=list(classes),
        )


def check_classes(classes: Sequence[str], found: Mapping[str, int], path: Path) -> None:
    """Raise a UserError for a class that no label has.

    Args:
        classes: that are listed
        found: class → number of labels
        path: of the labels
    """
    if missing := [name for name in classes if not found.get(name)]:
        known = [name for name in sorted(found) if name]
        shown = ", ".join(known[:MAX_SHOWN]) + (f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else "")
        raise UserError(
            f"data.classes has {', '.join(missing)}, a class that no label of {path} has; choose from "
            f"{shown or 'other values: data.category is empty everywhere'}",
            kind="not_found",
            key="data.classes",
            value=missing[0],
        )
