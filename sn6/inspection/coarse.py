"""Measure the radar at 4.5 m, as the one public crop of real radar of Rotterdam has it: tails, bands, residuals."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from sn6.datasets.declaration import Product
from sn6.inspection.histograms import Histogram

CELL = 9  # of 0.5 m on each side of a cell of 4.5 m
OFFSET, STEP = 2, 5  # of the pixels of a cell that are averaged, 2x2 of 9x9: as many looks as the real crop, about
BLOCK = 16  # cells on each side of a block whose residual variance is measured


class RadarHistogram(Histogram):
    """A histogram of the radar, with that of its cells of 4.5 m and the sums that compare their bands.

    Attributes:
        cells: histogram of the cells
        products: sums over cells of the products of each two bands, dB², (bands, bands)
        residual: sum over blocks of the variance within the block, of each band, dB²
        blocks: number of blocks without nodata
    """

    def __init__(self, product: Product) -> None:
        super().__init__(product)
        bands = len(self.bands)
        self.cells = Histogram(product)
        self.products: Float64[np.ndarray, "bands bands"] = np.zeros((bands, bands))
        self.residual: Float64[np.ndarray, " bands"] = np.zeros(bands)
        self.blocks = 0

    def add(self, image: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]) -> None:
        """Count the pixels and the cells of a tile; those with nodata are left out."""
        super().add(image, valid)
        cells, has_data = to_cells(image, valid)
        self.cells.add(cells, has_data)
        inside = cells[:, has_data].astype(np.float64)
        self.products += inside @ inside.T
        height, width = (side // BLOCK for side in has_data.shape)
        inner = np.s_[..., : height * BLOCK, : width * BLOCK]
        blocks = cells[inner].reshape(len(cells), height, BLOCK, width, BLOCK).astype(np.float64)
        full = has_data[inner].reshape(height, BLOCK, width, BLOCK).all(axis=(1, 3))
        self.residual += blocks.var(axis=(2, 4))[:, full].sum(axis=1)
        self.blocks += int(full.sum())

    def merge(self, other: Histogram) -> None:
        """Add the counts and sums of other tiles."""
        assert isinstance(other, RadarHistogram)
        super().merge(other)
        self.cells.merge(other.cells)
        self.products += other.products
        self.residual += other.residual
        self.blocks += other.blocks

    @property
    def correlation(self) -> Float64[np.ndarray, "bands bands"]:
        """Return the correlation coefficient of each two bands over the cells."""
        mean = self.cells.mean
        covariance = self.products / self.cells.valid_pixels - np.outer(mean, mean)
        deviation = np.sqrt(np.diagonal(covariance))
        return covariance / np.outer(deviation, deviation)

    @property
    def residual_variance(self) -> Float64[np.ndarray, " bands"]:
        """Return the mean variance within blocks of `BLOCK` x `BLOCK` cells, dB²; there must be one."""
        return self.residual / self.blocks


def histogram_of(product: Product) -> Histogram:
    """Return an empty histogram of a product."""
    return Histogram(product) if product.optical else RadarHistogram(product)


def to_cells(
    image: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "bands h9 w9"], Bool[np.ndarray, "h9 w9"]]:
    """Average the power of 2x2 pixels of each cell of 4.5 m; return decibels, and which cells have no nodata."""
    height, width = (side // CELL for side in valid.shape)
    inner = np.s_[..., : height * CELL, : width * CELL]
    shape = (height, CELL, width, CELL)
    has_data: Bool[np.ndarray, "h9 w9"] = np.all(valid[inner].reshape(shape), axis=(1, 3))
    pixels = image[inner].reshape(len(image), *shape)[:, :, OFFSET::STEP, :, OFFSET::STEP]
    power = (10 ** (pixels / np.float32(10))).mean(axis=(2, 4))
    return np.where(has_data, 10 * np.log10(power), 0).astype(np.float32), has_data
