"""Mean of several looks at one tile, from the stored outputs of the network: against a plain loop in NumPy and SciPy.

Half of the images are from the south, rotated by 180°. Each is some pixels and a fraction away from the tile, and has a
corner of nodata.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage

from benchmarks.comparison import Row, medians, require
from benchmarks.process import own_process
from benchmarks.street_map import SIZE
from sn6.datasets.placed_image import Grid, PlacedImage
from sn6.datasets.radar_units import Units
from sn6.datasets.spacenet6 import CRS, PIXEL
from sn6.heads import Heads
from sn6.prediction.fused_map import fuse
from sn6.prediction.fusion import LEAST, Fusion
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Layout, Rectangle
from sn6.prediction.mosaic import Mosaic
from sn6.processes import keep_freed_memory
from sn6.targets.mask import Mask

LOOKS, LIMIT = 14, 0.150  # s
FUSION = Fusion(fade=16.0, balance=True)  # the defaults of sn6.predict
MAX_OFFSET = 12  # px from the tile
WEST, NORTH = 591550.0, 5750000.0
PEER = "scipy.ndimage.shift and uniform_filter, look by look"
HEADS = Heads({"mask": Mask()})
Looks = tuple[Layout, list[Mosaic]]  # the images of a map, and their outputs
Fused = tuple[np.ndarray, np.ndarray]  # the mean outputs (h, w), NaN where there is no look, and the number of looks


def rows(looks: int = LOOKS, size: int = SIZE, repeats: int = 7) -> Iterator[Row]:
    """Yield a row for a tile of `size` pixels."""
    with TemporaryDirectory() as folder:
        case = (Path(folder), looks, size)
        write_outputs(*case)
        inputs = f"{size}×{size}, {looks} looks, one map"
        (mean, number), (plain, plain_number) = make_sn6(*case)(), make_plain(*case)()
        require((number == plain_number).all(), f"fusion of {inputs}: the numbers of looks differ")
        require((np.isnan(mean) == np.isnan(plain)).all(), f"fusion of {inputs}: one mean lacks pixels of the other")
        difference = np.nanmax(np.abs(mean - plain))
        require(difference < 1e-4, f"fusion of {inputs}: sn6 and the plain loop differ by {difference:.2g}")
        with own_process(keep_freed_memory) as ours, own_process() as theirs:
            seconds = medians({"ours": ours(make_sn6, *case), "theirs": theirs(make_plain, *case)}, repeats)
        agreement = f"to 1e-4 ({difference:.1g}), numbers of looks equal"
        limit = LIMIT if looks == LOOKS else None
        yield Row("fusion of a tile", inputs, seconds["ours"], PEER, seconds["theirs"], agreement, max_ours=limit)


def make_sn6(folder: Path, looks: int, size: int) -> Callable[[], Fused]:
    """Return the fusion of sn6 of the files in a folder."""
    layout, mosaics = looks_in(folder, looks, size)
    return partial(fused, (layout, mosaics), layout.rectangle(0))


def make_plain(folder: Path, looks: int, size: int) -> Callable[[], Fused]:
    """Return the plain fusion of the files in a folder."""
    layout, mosaics = looks_in(folder, looks, size)
    return partial(plain_mean, (layout, mosaics), layout.rectangle(0))


def looks_in(folder: Path, looks: int, size: int) -> Looks:
    """Return images around a tile, the first one, and where the outputs of the network for them are stored."""
    offsets = np.random.default_rng(0).uniform(-MAX_OFFSET, MAX_OFFSET, (looks, 2))
    offsets[0] = 0
    images = [
        image_at(down, right, size, from_south=number % 2 == 1) for number, (down, right) in enumerate(offsets.tolist())
    ]
    return Layout(tuple(images)), [Mosaic(folder / str(number), size, size, size, 0) for number in range(looks)]


def write_outputs(folder: Path, looks: int, size: int) -> None:
    """Write outputs of the network, in the frame that it sees, with a corner of nodata."""
    rng = np.random.default_rng(0)
    is_corner = np.add.outer(np.arange(size), np.arange(size)) < size // 6
    for mosaic in looks_in(folder, looks, size)[1]:
        outputs = ndimage.gaussian_filter(rng.normal(size=(1, size, size)), (0, 2, 2)).astype(np.float32)
        outputs[:, is_corner] = np.nan
        mosaic.folder.mkdir(parents=True)
        mosaic.write((slice(0, size), slice(0, size)), outputs)


def image_at(down: float, right: float, size: int, from_south: bool) -> Image:
    """Return an image whose corner is so many pixels below and right of (WEST, NORTH); it has no file."""
    corner = WEST + PIXEL * right, NORTH - PIXEL * down
    raster = PlacedImage("none.tif", Grid(CRS, *corner, PIXEL, size, size), (1,), False, Units("db"), None)
    orientation = {"rotated": from_south, "from_south": from_south}
    return Image("tile", "none.tif", raster, (1,), size, size, corner, PIXEL, PIXEL, CRS, **orientation)


def fused(looks: Looks, tile: Rectangle) -> Fused:
    """Fuse with sn6."""
    layout, mosaics = looks
    outputs, number = fuse(layout, range(len(mosaics)), tile, mosaics.__getitem__, HEADS, FUSION)
    return outputs[0], number


def plain_mean(looks: Looks, tile: Rectangle) -> Fused:
    """Do the same with whole images: move each to the grid of the tile, weigh it by its distance to its border, add.

    A pixel that is interpolated from one without data has none. The two sides count equally, each with its greatest
    weight.
    """
    layout, mosaics = looks
    reach = round(FUSION.fade / PIXEL)
    height, width = (side.stop - side.start for side in tile)
    sums, weights, greatest = (np.zeros((2, height, width)) for _ in range(3))
    number = np.zeros((height, width), dtype=int)
    for image, mosaic, index in zip(layout.images, mosaics, range(len(mosaics)), strict=True):
        (path,) = mosaic.folder.glob("*.npy")
        outputs = np.load(path)[0, ::-1, ::-1] if image.rotated else np.load(path)[0]
        place = layout.place(index)
        assert place is not None
        margin = reach + MAX_OFFSET + 2  # as far as the weights see, and as far as an image is moved
        padded = np.pad(outputs.astype(np.float64), margin, constant_values=np.nan)
        known, move = ~np.isnan(padded), (place.row - tile[0].start, place.column - tile[1].start)
        moved = ndimage.shift(np.where(known, padded, 0), move, order=1)
        valid = ndimage.shift(known.astype(np.float64), move, order=1) > 1 - 1e-6
        share = ndimage.uniform_filter(valid.astype(np.float64), 2 * reach + 1, mode="constant")
        weight = np.where(valid, np.clip(2 * share - 1, LEAST, 1), 0)
        inner = np.s_[margin : margin + height, margin : margin + width]
        side = int(image.from_south)
        sums[side] += (moved * weight)[inner]
        weights[side] += weight[inner]
        greatest[side] = np.maximum(greatest[side], weight[inner])
        number += valid[inner]
    with np.errstate(invalid="ignore"):
        means = np.nan_to_num(sums / weights)
        return (means * greatest).sum(axis=0) / greatest.sum(axis=0), number
