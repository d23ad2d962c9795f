"""Inspect an archive: its faults, its values, its folds, and how it compares with the published SpaceNet 6."""
