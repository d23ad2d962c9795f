"""Predict footprints with trained networks, from images to files: the steps of `python -m sn6.predict`."""
