"""Score footprints: `python -m sn6.score truth=... proposals=...`, or the folds of a training by `runs=...`.

Files that name tiles are scored tile by tile, other layers in one pass over the ground.
"""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import shapely
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from rich.console import Console

from sn6.cli import run_command
from sn6.errors import UserError, counted
from sn6.files import read_json, write_csv, write_text
from sn6.footprints.ground import TileGrid
from sn6.formats.challenge_csv import CHALLENGE_GRID
from sn6.formats.evaluation import EvaluatedPolygons, all_tiles, check_tiles, match_tiles, tile_notes
from sn6.formats.files import names_tiles, read_proposals, read_truth
from sn6.formats.outlines import Outlines, pack_rows, select_tiles
from sn6.metrics.ground_score import score_ground
from sn6.metrics.looks import Looks, looks_of
from sn6.metrics.matching import MIN_AREA, MIN_IOU
from sn6.metrics.score_tables import FOLD_COLUMNS, describe_instances, fold_rows, fold_table, score_table
from sn6.metrics.scorecard import ScoredTile, by_fold, scorecard
from sn6.prediction.output_folder import METADATA_FILE
from sn6.progress import track

if TYPE_CHECKING:
    from sn6.datasets.declaration import DataSet, Tile
    from sn6.sweeps.fold_runs import FoldRuns

MIN_WIDTH = 100  # characters of the table; rich takes 80 where the output is not a terminal
LOOK_DIRECTIONS = {0: "north", 1: "south", None: None}  # side that the tile was imaged from
FOR_LAYERS = "is for layers that name no tiles (image_id)"


@dataclass(frozen=True)
class LayerOptions:
    """The options of layers without tiles, as of `score`."""

    area: Path | None = None
    iou: float = MIN_IOU
    min_area: float = MIN_AREA
    where: str | None = None
    height: str | None = None
    confidence: str | None = None

    def given(self) -> dict[str, bool]:
        """Return for each option whether it is not its default."""
        return {field.name: getattr(self, field.name) != field.default for field in fields(self)}


def score(
    truth: Annotated[
        Path | None,
        "ground truth: CSV, GeoJSON, GeoParquet or a vector layer without tiles, or the folder of an archive or of a "
        "run for its labels; with runs=, null is the labels of their data",
    ] = None,
    proposals: Annotated[Path | None, "CSV, GeoJSON, GeoParquet or a vector layer without tiles; or set runs="] = None,
    runs: Annotated[Path | None, "folder of runs that differ in data.fold: scores their out-of-fold footprints"] = None,
    root: Annotated[
        Path | None,
        "archive with the look direction, strip, nodata and position of the tiles; with runs=, null is theirs",
    ] = None,
    out: Annotated[
        Path | None, "JSON file to write; null is outputs/score.json, or with runs= score.json in it"
    ] = None,
    strict: Annotated[bool, "score exactly as the organisers' program does, see above"] = False,
    resamples: Annotated[PositiveInt, "number of bootstrap resamples"] = 2000,
    block_size: Annotated[PositiveFloat, "edge length in m of the spatial blocks that the bootstrap resamples"] = 450.0,
    area: Annotated[Path | None, "without tiles: polygon layer to which both layers are cut; null is all"] = None,
    iou: Annotated[float, Field(gt=0, lt=1), "without tiles: the IoU of a match is above it"] = MIN_IOU,
    min_area: Annotated[NonNegativeFloat, "without tiles: m²; smaller polygons do not count"] = MIN_AREA,
    where: Annotated[str | None, "without tiles: SQL condition on the attributes of the ground truth"] = None,
    height: Annotated[str | None, "without tiles: attribute of the ground truth with the height in m"] = None,
    confidence: Annotated[
        str | None, "without tiles: attribute of the proposals; null is confidence, where they have it"
    ] = None,
    allow: Annotated[list[str] | str | None, "with runs=: as of sn6.predict"] = None,
    device: Annotated[str, "with runs=: auto, cpu, cuda or cuda:N"] = "auto",
    flips: Annotated[bool | None, "with runs=: as of sn6.predict"] = None,
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1), "with runs=: as of sn6.predict"] = (1.0,),
) -> None:
    """Score proposals against the ground truth: F1 over all tiles, its 95% interval, and its breakdowns.

    Buildings and proposals smaller than 80 px² (20 m²) do not count. In each tile, in order of decreasing confidence,
    a proposal is matched with the unmatched building of the highest IoU, which must be above 0.5. The counts are summed
    over the tiles. On a tile that the ground truth lacks each proposal is a false positive.

    The organisers' program silently ignores or mismeasures some polygons: it skips tiles without a row in the
    proposals, reads only the first part of a MULTIPOLYGON, and takes the area of a self-intersecting ring by the
    shoelace formula, which can give 0. By default the buildings of such tiles are false negatives, every part counts,
    and such a ring has the area that it encloses; a note reports each case. strict=true does the same as the
    organisers' program.

    AP50 is the area under the curve of precision over recall, of the proposals of all tiles ranked by confidence. PQ
    (panoptic quality) is F1 times the mean IoU of the matched pairs. Their boundary IoU is that of the bands of 1.5 m
    inside both outlines. A proposal merges buildings if it covers most of each of two or more; a building is split if
    most of it is covered by two or more proposals that are mostly inside.

    Breakdowns: F1 of the buildings that touch another (within 0.5 m) and of those that stand alone, where a false
    positive counts with the building that it overlaps most, or as standing alone; recall by area, height and distance
    to nodata of the building; precision by area and distance of the proposal; F1 by look direction and strip. Beside
    the prediction.json of a fused prediction (revisits=true) and with root=..., also recall, precision and F1 by the
    number of its tiles that see the building or the proposal, with or without nodata there. The interval needs the
    positions of the tiles, from root=... or from a GeoJSON or GeoParquet of sn6: a CSV does not contain them.

    Without tiles, that is where a layer has no attribute image_id, both layers are scored in one pass over the ground,
    in any format with a CRS: polygons of at least min_area=20 m² are matched by the same rule where their IoU is above
    iou=0.5. Both layers are moved to the CRS of the ground truth, or to the UTM zone of its place if its units are no
    metres, and cut to area=, as tiles cut them. The bootstrap resamples squares of ground.

    With runs=outputs/NAME, the folder of `python -m sn6.run -m data.fold=0,1,2,3,4 name=NAME`, each tile is predicted
    with the run that validated it, whose network has not seen its ground. The operating point is calibrated on all
    these tiles, and they are scored cross-fitted: each half of them at the point that was chosen on the other half. The
    epoch of each run was chosen on its own tiles all the same. proposals.csv, folds.csv with a row per fold,
    calibration.csv and operating_point.json, which `python -m sn6.predict checkpoint=outputs/NAME` uses, are written to
    the folder. The same command resumes a stopped prediction.

    Raises:
        UserError: invalid input
    """
    folds: FoldRuns | None = None
    notes: list[str] = []
    options = LayerOptions(area, iou, min_area, where, height, confidence)
    if runs is None:
        refuse(
            "needs runs=, whose tiles are predicted",
            allow=allow is not None,
            device=device != "auto",
            flips=flips is not None,
            scales=scales != (1.0,),
        )
        truth, proposals = required("truth", truth), required("proposals", proposals)
        if not name_tiles(truth, proposals):
            refuse("is for files that name tiles (image_id)", root=root is not None, strict=strict)
            score_layers(truth, proposals, options, block_size, resamples, out or Path("outputs/score.json"))
            return
        refuse(FOR_LAYERS, **options.given())
    else:
        refuse(FOR_LAYERS, **options.given())
        allowed = tuple([allow] if isinstance(allow, str) else allow or [])
        folds = find_folds(runs, proposals, root, truth)
        notes = predict_folds(folds, (allowed, device, flips, scales))
        proposals, out = folds.proposals, out or runs / "score.json"
    data_set = folds.data_set if folds else open_folder(root, truth)
    tiles = tiles_of(data_set)
    file = None if truth is None or truth.is_dir() else truth
    scored, more = match_files(file, proposals, data_set, tiles, strict, set(folds.fold_of) if folds else None)
    look_directions = {image_id: LOOK_DIRECTIONS[tile.orientation] for image_id, tile in tiles.items()}
    strips = {image_id: tile.strip for image_id, tile in tiles.items()}
    card = scorecard(scored, strips, look_directions, block_size, resamples)
    if folds is not None:
        card |= {"folds": by_fold(scored, folds.fold_of, block_size, resamples)}
    notes += more
    if card["interval"] is None:
        notes.append("no interval: needs the positions of all tiles (root=, GeoJSON or GeoParquet) in 2 or more blocks")
    out = out or Path("outputs/score.json")
    write_text(out, json.dumps({"strict": strict, "tiles": len(scored), **card, "notes": notes}, indent=2) + "\n")
    report(card, notes)
    if folds is not None:
        report_folds(folds.folder, card["folds"])
    print(f"scored {counted(len(scored), 'tile')}; details in {out}")


def required(key: str, path: Path | None) -> Path:
    """Return the path of a key; raise a UserError where it is not given."""
    if path is None:
        raise UserError(
            f"sn6.score: missing {key}=...; see `python -m sn6.score --help`", kind="missing_value", key=key
        )
    return path


def refuse(reason: str, **given: bool) -> None:
    """Raise a UserError for the first option that is given, with what it is for."""
    for key in (key for key, is_given in given.items() if is_given):
        raise UserError(f"{key}= {reason}; leave it out", kind="conflict", key=key)


def name_tiles(truth: Path, proposals: Path) -> bool:
    """Return whether two files are scored tile by tile: both name tiles, or one has no other place."""
    if truth.is_dir() or ".csv" in (truth.suffix.lower(), proposals.suffix.lower()):
        return True
    return names_tiles(truth) and names_tiles(proposals)


def score_layers(
    truth: Path, proposals: Path, options: LayerOptions, block_size: float, resamples: int, out: Path
) -> None:
    """Score two layers in one pass over the ground, write the score and report it; options as of `score`."""
    from sn6.datasets.layer_pair import read_layers  # imports geopandas, which takes longer than a small score
    from sn6.datasets.vector_labels import LabelColumns

    columns = LabelColumns(options.where, options.height)
    layers = read_layers(truth, proposals, options.area, columns, options.confidence)
    if not (shapely.area(layers.truth.polygons) >= options.min_area).any():
        raise UserError(
            f"{truth}: no building of at least {options.min_area:g} m² on the ground that is scored; set min_area=",
            kind="wrong_data",
            key=truth,
            value=options.min_area,
        )
    card = score_ground(
        layers.truth, layers.proposed, layers.origin, options.min_area, options.iou, block_size, resamples
    )
    notes = [*layers.notes]
    if card["interval"] is None:
        notes.append(f"no interval: all polygons are in one square of {block_size:g} m; set block_size=")
    rule = {"iou": options.iou, "min_area": options.min_area}
    write_text(out, json.dumps({"ground": layers.ground, **rule, **card, "notes": notes}, indent=2) + "\n")
    report(card, notes, "all polygons", options.iou)
    where = f"inside {options.area}" if options.area else "the bounding boxes of both layers"
    print(f"scored {where}, {layers.ground['km2']:.4g} km² in {layers.ground['crs']}; details in {out}")


def find_folds(runs: Path, proposals: Path | None, root: Path | None, truth: Path | None) -> "FoldRuns":
    """Return the runs of folds.

    Raises:
        UserError: `proposals` is given too, there is no ground truth, and errors of `find_fold_runs`
    """
    if proposals is not None:
        raise UserError(
            "runs= scores proposals of its own; leave out proposals= or runs=",
            kind="conflict",
            key="proposals",
            value=str(proposals),
        )
    from sn6.sweeps.fold_runs import find_fold_runs  # imports torch, which takes longer than a small score

    folds = find_fold_runs(runs, root)
    labels = truth or next(iter(folds.data_set.label_tables), None)
    if labels is not None and not labels.exists():
        raise UserError(
            f"{labels} is missing; set truth= to a file of labels", kind="not_found", key="truth", value=str(labels)
        )
    return folds


def predict_folds(folds: "FoldRuns", options: tuple[Any, ...]) -> list[str]:
    """Write the out-of-fold footprints of runs, and return notes; errors of `write_out_of_fold`.

    Args:
        folds: the runs
        options: values of `sn6.sweeps.out_of_fold.Options`
    """
    from sn6.sweeps.out_of_fold import Options, write_out_of_fold

    notes = [folds.note(), write_out_of_fold(folds, Options(*options))]
    return [note for note in notes if note]


def match_files(
    truth: Path | None,
    proposals: Path,
    data_set: "DataSet | None",
    tiles: dict[str, "Tile"],
    strict: bool,
    selected: Container[str] | None,
) -> tuple[list[ScoredTile], list[str]]:
    """Match the proposals of two files tile by tile; return the tiles and notes.

    Args:
        truth: file of the ground truth; None for the labels of the data set
        proposals: file
        data_set: of the tiles, None where it is not given
        tiles: of the data set, by image id
        strict: whether the organisers' rules apply
        selected: image ids of the ground truth that are scored, None for all
    """
    grid, pixel_size = None, CHALLENGE_GRID
    if data_set is not None:
        pixel_size = data_set.pixel_size
        on_grid = {image_id: (tile.bounds[0], tile.bounds[3]) for image_id, tile in tiles.items()}
        grid = TileGrid(on_grid, data_set.crs, pixel_size)

    def read_valid(image_id: str) -> np.ndarray | None:
        if data_set is None or data_set.radar is None or image_id not in tiles:
            return None
        return data_set.read(tiles[image_id], data_set.radar, (1,))[1]

    proposed = EvaluatedPolygons(proposals, read_proposals(proposals, grid), strict)
    if truth is not None:
        path, outlines = truth, read_truth(truth, grid)
    else:
        assert data_set is not None
        path, outlines = find_labels(data_set, tiles, proposed.outlines)
    true = EvaluatedPolygons(path, outlines if selected is None else select_tiles(outlines, selected), strict)
    check_tiles(true, proposed)
    corners = {name: corner for side in (true, proposed) for name, corner in side.outlines.tiles.items() if corner}
    looks = fused_looks(proposals, [tiles[name] for name in proposed.outlines.tiles if name in tiles])
    corners |= dict(grid.corners if grid else {})
    matching = match_tiles(true, proposed, corners, read_valid, pixel_size, looks)
    tiles_to_match = len(all_tiles(true, proposed))
    scored = [*track(matching, f"matching {counted(tiles_to_match, 'tile')}", tiles_to_match)]
    return scored, [*tile_notes(true, proposed), *true.notes(), *proposed.notes()]


def fused_looks(proposals: Path, tiles: Sequence["Tile"]) -> Looks | None:
    """Return the looks of a prediction that has fused its images; None for other proposals.

    Args:
        proposals: a file, beside the `prediction.json` of sn6.predict if it is of a prediction
        tiles: its tiles, as far as they are known
    """
    metadata = proposals.parent / METADATA_FILE
    if not tiles or not metadata.exists():
        return None
    settings = read_json(metadata).get("settings")
    is_fused = isinstance(settings, dict) and settings.get("revisits") is not None
    return looks_of([tile.bounds for tile in tiles]) if is_fused else None


def open_folder(root: Path | None, truth: Path | None) -> "DataSet | None":
    """Return the data set of an archive, or of the run in the folder `truth`; None where neither is given."""
    folder = root or (truth if truth is not None and truth.is_dir() else None)
    if folder is None:
        return None
    from sn6.training.data_source import DataSource, is_run  # imports rasterio, which takes longer than a small score

    return DataSource(run=folder).open() if is_run(folder) else DataSource(root=folder).open()


def tiles_of(data_set: "DataSet | None") -> dict[str, "Tile"]:
    """Return the tiles of the radar product of a data set, or of its first one where it has none, by image id."""
    if data_set is None:
        return {}
    product = data_set.radar or next(iter(data_set.products))
    splits = [split for split in data_set.splits if data_set.has_product(split, product)]
    return {tile.image_id: tile for split in splits for tile in data_set.tiles(split, product)}


def find_labels(data_set: "DataSet", tiles: dict[str, "Tile"], proposed: Outlines) -> tuple[Path, Outlines]:
    """Return the labels of the tiles of the proposals, with their path: from the table that names most of them, or by
    their place where there are no tables.

    Raises:
        UserError: there are no labels, or they cannot be read
    """
    if not data_set.label_tables:
        corners = {name: corner for name, corner in proposed.tiles.items() if name in tiles}
        labels = [data_set.labels(tiles[name]) for name in corners]
        rows = [(one.polygons, one.heights) for one in labels if one is not None]
        if len(rows) < len(labels):
            raise UserError(
                f"{data_set.root} has tiles without labels; set truth= to a file of labels",
                kind="not_found",
                key="truth",
            )
        return data_set.root, pack_rows(corners, rows)
    tables = {path: read_truth(path) for path in data_set.label_tables if path.exists()}
    if not tables:
        raise UserError(
            f"{data_set.root} has no labels: {data_set.label_tables[0]} is missing; set truth= to a file of labels",
            kind="not_found",
            key="truth",
            value=data_set.root,
        )
    return max(tables.items(), key=lambda item: len(item[1].tiles.keys() & proposed.tiles.keys()))


def report(card: dict[str, Any], notes: list[str], ground: str = "all tiles", min_iou: float = MIN_IOU) -> None:
    """Print the notes, the score as a table, and the interval; arguments as of `score_table`, `describe_instances`."""
    for note in notes:
        print(f"note: {note}")
    console = Console(force_jupyter=False)  # in a notebook it would show what sn6.evaluate returns
    console.width = max(console.width, MIN_WIDTH)
    console.print(score_table(card, ground))
    print(describe_instances(card["instances"], min_iou))
    if card["interval"]:
        low, high = card["interval"]["f1"]
        level, blocks = card["interval"]["level"], card["interval"]["spatial_blocks"]
        print(f"{level:.0%} interval of F1: {low:.3f} to {high:.3f}, from {blocks} spatial blocks")


def report_folds(folder: Path, scores: dict[str, Any]) -> None:
    """Print the scores of the folds, and write them to the folder of the runs."""
    write_csv(folder / "folds.csv", FOLD_COLUMNS, fold_rows(scores))
    Console().print(fold_table(scores))


if __name__ == "__main__":
    run_command(score, "sn6.score")
