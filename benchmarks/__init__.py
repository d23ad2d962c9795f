"""Measured against what a user would otherwise do; not tests."""
