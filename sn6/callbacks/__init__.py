"""Callbacks of a training: score, calibration, pretraining and transfer, resuming, pictures, throughput."""
