"""Draw the speckle of a multilook polarimetric radar: circular Gaussian fields through the sensor's impulse response.

The statistics are those of fully developed speckle: J. W. Goodman, Speckle Phenomena in Optics, 2007; the number of
looks of correlated samples as in C. Oliver and S. Quegan, Understanding Synthetic Aperture Radar Images, 2004, 4.3.
"""

import numpy as np
from jaxtyping import Complex64, Float32

# Amplitudes of a point in the single-look samples half a pixel, a pixel and 1.5 pixels away; 1 in its own. Chosen so
# that the cross-polarised bands, mostly noise, spread nearly as far as between the published percentiles 1 and 50.
RESPONSE = np.array([0.8, 0.41, 0.135], dtype=np.float32)
# These follow from RESPONSE for a flat field. Two single-look samples have the complex correlations C1, C2, ... at
# distances 1, 2, ... in a row or a column; 2x2 of them have LOOKS = 4 / (1 + C1²)², and adjacent pixels share
# (C1² + 2·C2² + C3²) / (2 + 2·C1²) of the variance.
LOOKS = 1.241  # mean² / variance of the intensity
NEIGHBOURS = 0.476  # correlation of the intensities of two adjacent pixels
ROWS = 32  # of samples at a time, which stay in the processor's cache
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
    n = len(RESPONSE)
    white = rng.standard_normal((2 * height + 2 * n, 4 * width + 4 * n), np.float32)
    field = np.empty((2 * height, 4 * width), dtype=np.float32)  # real and imaginary parts alternate
    for top in range(0, len(field), ROWS):
        field[top : top + ROWS] = respond(white[top : top + ROWS + 2 * n])
    return field.view(np.complex64)


def respond(white: Float32[np.ndarray, "_ _"]) -> Float32[np.ndarray, "_ _"]:
    """Return white noise through the impulse response, without the margin that the response needs on each side."""
    n, inner = len(RESPONSE), white.shape[1] - 4 * len(RESPONSE)
    rows, pair = white[n:-n].copy(), np.empty_like(white[n:-n])
    for distance, amplitude in enumerate(RESPONSE, start=1):
        np.add(white[n - distance : -n - distance], white[n + distance : len(white) - n + distance], out=pair)
        pair *= amplitude
        rows += pair
    field, pair = rows[:, 2 * n : -2 * n].copy(), pair[:, :inner]
    for distance, amplitude in enumerate(RESPONSE, start=1):
        left, right = 2 * (n - distance), 2 * (n + distance)
        np.add(rows[:, left : left + inner], rows[:, right : right + inner], out=pair)
        pair *= amplitude
        field += pair
    field *= np.float32(np.sqrt(0.5) / (1 + 2 * np.sum(RESPONSE**2)))
    return field
