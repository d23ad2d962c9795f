"""A made-up city seen from the air: the scene, its images in each pass, the tiles cut from them, their files."""
