"""Score footprints in Python: `sn6.evaluate(truth, predictions)` gives what `sn6 score` writes to score.json."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sn6.cli import validate_arguments
from sn6.errors import UserError
from sn6.files import read_json
from sn6.score import score

if TYPE_CHECKING:  # takes a second to import
    from geopandas import GeoDataFrame


def evaluate(
    truth: "str | Path | GeoDataFrame", predictions: "str | Path | GeoDataFrame", **options: Any
) -> dict[str, Any]:
    """Return the score of predictions, as the JSON values of score.json: `overall` has F1, precision and recall.

    Layers with the attribute `image_id` on both sides are scored tile by tile, others in one pass over the ground.

    Args:
        truth: ground truth: a file or folder as of `sn6 score truth=`, or a table with a CRS
        predictions: a file as of `sn6 score proposals=`, or a table with a CRS
        **options: the options of `sn6.score.score`, such as `area`, `iou`, `min_area` or `where`

    Raises:
        UserError: a table has no CRS, and errors of the command
    """
    with TemporaryDirectory() as folder:
        files = {
            "truth": as_file(truth, Path(folder) / "truth.parquet"),
            "proposals": as_file(predictions, Path(folder) / "predictions.parquet"),
        }
        out = Path(folder) / "score.json"
        with redirect_stdout(StringIO()):  # the table, whose values are returned
            score(**validate_arguments(score, dict(**files, out=out, **options), where="sn6.evaluate"))
        return read_json(out)


def as_file(layer: "str | Path | GeoDataFrame", path: Path) -> Path:
    """Return the path of a layer; a table is written to `path` first.

    Raises:
        UserError: the table has no CRS
    """
    if isinstance(layer, str | Path):
        return Path(layer)
    if layer.crs is None:
        raise UserError(
            f"{path.stem}: the table has no CRS, so its place is not known; set it by .set_crs()",
            kind="invalid_value",
            key=path.stem,
        )
    layer.to_parquet(path)
    return path
