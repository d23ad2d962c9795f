"""sn6: building footprints from radar, an experiment framework for SpaceNet 6."""
