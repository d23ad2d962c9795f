"""Measure sn6 against what a user would otherwise use. These are not tests."""
