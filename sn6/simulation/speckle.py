"""Draw the speckle of a multilook polarimetric radar: circular Gaussian fields through the sensor's impulse response.

The statistics are those of fully developed speckle: J. W. Goodman, Speckle Phenomena in Optics, 2007; the number of
looks of correlated samples as in C. Oliver and S. Quegan, Understanding Synthetic Aperture Radar Images, 2004, 4.3.
"""

import numpy as np
from jaxtyping import Complex64, Float32

# Amplitude of a point in the single-look samples half a pixel and a pixel away; 1 in its own. Chosen so that the noise
# alone spreads over as many decibels as the published percentiles 1 and 50 of the cross-polarised bands.
RESPONSE = np.float32(0.75), np.float32(0.2)
# These follow from RESPONSE for a flat field. Two single-look samples have the complex correlations 0.816, 0.437,
# 0.136, 0.018 and 0 at distances 1 to 5 in a row or a column; 2x2 of them have LOOKS = 4 / (1 + 0.816²)², and adjacent
# pixels share (0.816² + 2·0.437² + 0.136²) / (2 + 2·0.816²) of the variance.
LOOKS = 1.44  # mean² / variance of the intensity
NEIGHBOURS = 0.320  # correlation of the intensities of two adjacent pixels
COPOLAR = 0.5  # complex correlation of HH and VV; that of HV and VH is 1 by reciprocity, less with receiver noise


def add_speckle(
    signal: Float32[np.ndarray, "4 h w"], noise: Float32[np.ndarray, "4"], rng: np.random.Generator
) -> Float32[np.ndarray, "4 h w"]:
    """Draw the intensity of a 2x2 multilook whose mean is `signal` + `noise`.

    Args:
        signal: mean power from the ground in HH, HV, VH, VV
        noise: mean power of the receiver's noise, which is independent in each band
        rng: draws the fields
    """
    _, height, width = signal.shape
    copolar, crosspolar, other = (single_look(rng, height, width) for _ in range(3))
    vv = np.float32(COPOLAR) * copolar + np.float32(np.sqrt(1 - COPOLAR**2)) * other
    intensity = np.empty_like(signal)
    for band, field in enumerate((copolar, crosspolar, crosspolar, vv)):
        amplitude = np.sqrt(signal[band]).repeat(2, axis=0).repeat(2, axis=1)  # equal in the samples of a pixel
        echo = single_look(rng, height, width)
        echo *= np.sqrt(noise[band])
        echo += amplitude * field
        power = echo.real**2 + echo.imag**2
        rows = power[0::2] + power[1::2]
        intensity[band] = (rows[:, 0::2] + rows[:, 1::2]) / 4
    return intensity


def single_look(rng: np.random.Generator, height: int, width: int) -> Complex64[np.ndarray, "2*{height} 2*{width}"]:
    """Draw a circular Gaussian field of mean intensity 1 with two samples per pixel in rows and in columns."""
    white = rng.standard_normal((2 * height + 4, 4 * width + 8), np.float32)
    near, far = RESPONSE
    rows = white[1:-3] + white[3:-1]
    rows *= near / far
    rows += white[:-4]
    rows += white[4:]
    rows *= far
    rows += white[2:-2]
    field = rows[:, 2:-6] + rows[:, 6:-2]  # real and imaginary parts alternate
    field *= near / far
    field += rows[:, :-8]
    field += rows[:, 8:]
    field *= far
    field += rows[:, 4:-4]
    field *= np.sqrt(0.5) / (1 + 2 * near**2 + 2 * far**2)
    return field.view(np.complex64)
