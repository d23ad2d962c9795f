"""List the published values of SpaceNet 6, to compare archives with.

Sources: the training tiles of the published archive (CC BY-SA 4.0) as described by its organisers (J. Shermeyer et
al., SpaceNet 6: Multi-Sensor All Weather Mapping Dataset, CVPR EarthVision 2020), and the settings of the challenge's
winning solution.
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
