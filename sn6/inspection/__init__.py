"""Every file of an archive read and held against what SpaceNet 6 is: its faults, its values and its folds."""
