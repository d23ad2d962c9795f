"""Candidates for the operating point of a network, and the choice among them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise, product
from typing import Any, TypeAlias

from sn6.datasets.declaration import Tile
from sn6.errors import UserError
from sn6.footprints.polygonizer import Polygonizer
from sn6.metrics.matching import Counts

CANDIDATES = "callbacks.calibration.candidates"  # the key, for messages
DIGITS = 6  # decimals of a value between two candidates
Candidates: TypeAlias = Mapping[str, Sequence[float]]  # field of the polygonizer → values, ascending
Scores: TypeAlias = Mapping[Polygonizer, Counts]


@dataclass(frozen=True)
class Point:
    """An operating point, and how it was chosen.

    Attributes:
        polygonizer: from maps to footprints
        f1: F1 of the tiles that chose it, by the IoU of pixels; 0 where nothing matches: the config's values stay
        chosen_on: number of the tiles that chose it
        tiles: number of the tiles that are scored with it, which are others
    """

    polygonizer: Polygonizer
    f1: float
    chosen_on: int
    tiles: int


@dataclass(frozen=True)
class Choice:
    """What the calibration chose.

    Attributes:
        point: of all results outside the validation tiles, chosen on all of them
        halves: of the halves of the validation tiles, each chosen on tiles of the other half
        cross_fitted: validation tile → polygonizer of its half
        fields: of the polygonizer that were varied
        scores: counts of all validation tiles at each point that was tried, by the IoU of pixels
    """

    point: Point
    halves: tuple[Point, ...]
    cross_fitted: Mapping[Tile, Polygonizer] = field(repr=False)
    fields: tuple[str, ...]
    scores: Scores = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return how the point was chosen, for metrics.json."""
        keys = (*self.fields, "f1", "chosen_on", "tiles")
        halves = [{key: (asdict(half.polygonizer) | vars(half))[key] for key in keys} for half in self.halves]
        return {"f1": self.point.f1, "halves": halves}

    def table(self) -> list[dict[str, float]]:
        """Return a row for each point that was tried: its fields, counts and scores, and 1 where it was chosen."""
        return [
            {name: getattr(polygonizer, name) for name in self.fields}
            | asdict(counts)
            | {key: getattr(counts, key) for key in ("precision", "recall", "f1")}
            | {"chosen": int(polygonizer == self.point.polygonizer)}
            for polygonizer, counts in self.scores.items()
        ]


def candidates_of(polygonizer: Polygonizer, given: Mapping[str, Sequence[float]] | None) -> Candidates:
    """Return the values to try of each field, ascending: those that are given, else those of the polygonizer.

    Raises:
        UserError: the polygonizer has no such field, or refuses a value
    """
    candidates = polygonizer.candidates if given is None else given
    fields = [name for name in asdict(polygonizer) if name != "simplify"]  # it changes no pixel
    for name, values in candidates.items():
        if name not in fields:
            raise UserError(
                f"{CANDIDATES} has {name}, but the fields of {type(polygonizer).__name__} to choose are "
                f"{', '.join(fields)}; correct the name",
                kind="unknown_key",
                key=f"{CANDIDATES}.{name}",
            )
        for value in values:
            try:
                replace(polygonizer, **{name: value})
            except UserError as error:
                message = f"{CANDIDATES}.{name}: {error}"
                raise UserError(message, kind=error.kind, key=f"{CANDIDATES}.{name}", value=value) from None
    names = sorted(candidates, key="min_area".__eq__)  # last: all minimum areas of a division are tried at once
    return {name: sorted(set(candidates[name])) for name in names}


def grid(polygonizer: Polygonizer, candidates: Candidates) -> list[Polygonizer]:
    """Return the polygonizer with every combination of the candidates."""
    return [
        replace(polygonizer, **dict(zip(candidates, values, strict=True))) for values in product(*candidates.values())
    ]


def grid_around(best: Polygonizer, candidates: Candidates, refinements: Candidates) -> list[Polygonizer]:
    """Return the points of the second grid, around a point of the first.

    They have its values and the middles beside them, half of the distance, and its values with all refinements.
    """
    near = {}
    for name, values in candidates.items():
        at = values.index(getattr(best, name))
        middles = [round((one + other) / 2, DIGITS) for one, other in pairwise(values)]
        near[name] = sorted({values[at], *middles[max(at - 1, 0) : at + 1]})
    areas = {name: values for name, values in near.items() if name == "min_area"}
    return list(dict.fromkeys([*grid(best, near), *grid(best, {**refinements, **areas})]))


def refinements_of(polygonizer: Polygonizer, candidates: Candidates) -> Candidates:
    """Return the values of further fields to try around the best candidate, ascending, with those of the config."""
    return {
        name: sorted({getattr(polygonizer, name), *values})
        for name, values in polygonizer.refinements.items()
        if name not in candidates
    }


def best_point(scores: Scores, config: Polygonizer, fields: Sequence[str]) -> Polygonizer:
    """Return the point with the highest F1; of equal ones that nearest to the config's values, in order of the fields.

    Where nothing matches a building, it is the config's own.
    """

    def rank(point: Polygonizer) -> tuple[float, ...]:  # rounded: 0.4 and 0.6 are equally far from 0.5
        values = [getattr(point, name) for name in fields]
        distances = [round(abs(value - getattr(config, name)), 9) for name, value in zip(fields, values, strict=True)]
        return (-scores[point].f1, *distances, *values)

    best = min(scores, key=rank)
    return best if scores[best].f1 > 0 else config
