"""List the published values of SpaceNet 6, to compare archives with.

Sources: the training tiles of the published archive (CC BY-SA 4.0) as described by its organisers (J. Shermeyer et
al., SpaceNet 6: Multi-Sensor All Weather Mapping Dataset, CVPR EarthVision 2020), and the settings of the challenge's
winning solution.

The values at 4.5 m are those of one crop of real radar of Rotterdam by the same sensor, in another processing (24,339
cells, measured 2026-11-26): they say in which direction an archive differs, and are not to be met exactly.
"""

PERCENTS = (1, 50, 99)
SAR_PERCENTILES = {  # decibels at PERCENTS, over valid pixels
    "HH": (11.4, 28.6, 47.6),
    "HV": (20.0, 36.0, 52.8),
    "VH": (16.8, 33.8, 50.8),
    "VV": (8.0, 25.6, 45.8),
}
SAR_MEANS = {"HH": 28.63, "HV": 36.10, "VH": 33.84, "VV": 26.21}  # decibels over valid pixels, winning solution
SAR_STDS = {"HH": 8.41, "HV": 8.27, "VH": 8.32, "VV": 8.64}
SAR_MAXIMUM = 92.9  # decibels, over all bands
NODATA_FRACTION = 0.138  # of the radar's pixels
LABEL_ROWS = 214_682 / 3401  # per tile
OPTICAL_MEANS = {"B": 106.0, "G": 145.0, "R": 152.0, "NIR": 335.0}  # counts of PS-RGBNIR
OPTICAL_STDS = {"B": 119.0, "G": 134.0, "R": 160.0, "NIR": 298.0}
COARSE_SKEWNESS = {"HH": 1.69, "HV": 1.74, "VH": 1.70, "VV": 1.51}  # of decibels at 4.5 m
COARSE_UPPER_TAIL = {"HH": 20.5, "HV": 11.4, "VH": 13.4, "VV": 20.4}  # dB, percentile 99 less the median
COARSE_LOWER_TAIL = {"HH": 6.3, "HV": 4.9, "VH": 5.2, "VV": 6.5}  # dB, the median less percentile 1
COARSE_RESIDUAL = {"HH": 21.9, "HV": 7.3, "VH": 9.7, "VV": 22.2}  # dB², mean variance within blocks of 16x16 cells
COARSE_CORRELATION = {("HH", "HV"): 0.71, ("HV", "VH"): 0.78, ("VH", "VV"): 0.79, ("HH", "VV"): 0.91}
