"""A trained network in Python: `sn6.load(run).predict(image)` gives the footprints that `sn6 predict` writes."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from sn6.cli import validate_arguments
from sn6.errors import UserError
from sn6.predict import predict

if TYPE_CHECKING:  # take a second to import
    from geopandas import GeoDataFrame
    from rasterio.transform import Affine

IMAGE_ID = "image"  # of an array


def load(run: str | Path | Sequence[str | Path], allow: Sequence[str] = ()) -> "TrainedModel":
    """Return a trained network, after its weights have been read once to check them.

    Args:
        run: a run's folder, a .ckpt, weights.safetensors or hf://owner/name; several average their
            outputs, as does the folder of the runs of several folds that sn6.score runs= has scored
        allow: PACKAGE.CLASS of networks and polygonizers that are not part of sn6, which the weights may import

    Raises:
        UserError: the weights are missing, broken, or of networks with different bands or heads
    """
    from sn6.prediction.networks import find_checkpoints, load_networks  # imports torch

    paths = [Path(run)] if isinstance(run, str | Path) else [Path(path) for path in run]
    load_networks(find_checkpoints(paths)[0], tuple(allow))
    return TrainedModel(tuple(paths), tuple(allow))


@dataclass(frozen=True)
class TrainedModel:
    """A trained network, or several whose outputs are averaged.

    Attributes:
        paths: of its runs or weights, as `load` takes them
        allow: classes that are not part of sn6
    """

    paths: tuple[Path, ...]
    allow: tuple[str, ...] = ()

    def predict(
        self,
        image: str | Path | Shaped[np.ndarray, "c h w"],
        transform: "Affine | None" = None,
        crs: Any = None,
        **options: Any,
    ) -> "GeoDataFrame":
        """Return the footprints of an image, with the attributes and the CRS of the files of `sn6 predict images=`.

        Args:
            image: path or address of an image, a folder or a pattern; or the bands of the network, in their order and
                in the units of its training, NaN or its nodata value where there are no data
            transform: of an array: from columns and rows to the CRS
            crs: of an array: anything that rasterio reads; without it footprints are in pixels
            **options: the options of `sn6.predict.predict`, such as `threshold`, `flips`, `aoi` or `device`

        Raises:
            UserError: as of the command
        """
        from geopandas import read_parquet

        with TemporaryDirectory() as folder:
            if isinstance(image, np.ndarray):
                images = str(Path(folder) / f"{IMAGE_ID}.tif")
                write_array(Path(images), image, transform, crs)
            elif transform is not None or crs is not None:
                raise UserError(
                    "transform= and crs= are for arrays; leave them out, a file has its own",
                    kind="conflict",
                    key="transform",
                )
            else:
                images = str(image)
            out = Path(folder) / "prediction"
            fixed = {"checkpoint": list(self.paths), "allow": list(self.allow), "formats": ["parquet"]}
            fixed |= {"images": images, "out": out}
            with redirect_stdout(StringIO()):  # the list of the files, which are temporary
                predict(**validate_arguments(predict, dict(**fixed, **options), where="sn6.load(...).predict"))
            merged = out / "merged.parquet"
            return read_parquet(merged if merged.exists() else out / "footprints.parquet")


def write_array(path: Path, image: Shaped[np.ndarray, "c h w"], transform: "Affine | None", crs: Any) -> None:
    """Write an array as a GeoTIFF."""
    import rasterio

    bands, height, width = image.shape
    place = {"crs": crs, **({} if transform is None else {"transform": transform})}
    size = {"count": bands, "height": height, "width": width, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as file:
        file.write(image)
