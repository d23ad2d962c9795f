"""From trained networks and images to files of footprints: what `python -m sn6.predict` does."""
