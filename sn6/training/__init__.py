"""Trainings: a run and its stages, the resolved config, resuming, results, loggers, devices."""
