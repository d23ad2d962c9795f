"""Simulate a port city, its images in each pass, the tiles cut from them, and their files."""
