"""How a model folder is used, for its card."""

from sn6.exports.exported_run import ExportedRun
from sn6.heads import MASK

TEXT = """\
Footprints of any GeoTIFFs, as GeoPackage and GeoJSON{where}:

```
sn6 predict checkpoint={address} images=FOLDER out=OUT{rotate}
```

From Python:

```python
import sn6

footprints = sn6.load("{address}").predict("area.tif")  # a GeoDataFrame
```

Without sn6 or torch, the probabilities of windows of {window} × {window} pixels, by onnxruntime:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
image = np.full((1, {bands}, {window}, {window}), np.nan, np.float32)  # nodata; put the bands of the table here
(probability,) = session.run(["{mask}"], {{session.get_inputs()[0].name: image}})
```
"""


def usage(run: ExportedRun, window: int, repository: str | None) -> str:
    """Return commands and code that use the folder.

    Args:
        run: the network
        window: edge length in pixels of the images that model.onnx takes
        repository: `owner/name` on the hub, None where the folder is not pushed
    """
    source = run.metadata.source
    is_directed = source.product.sensor == "radar" and source.orient
    return TEXT.format(
        address=f"hf://{repository}" if repository else "MODEL",
        where="" if repository else "; `MODEL` is this folder",
        rotate=" rotate=true  # where imaged from the south" if is_directed else "",
        window=window,
        bands=len(source.bands),
        mask=MASK,
    )
