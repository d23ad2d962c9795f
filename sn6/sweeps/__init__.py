"""Sweeps: jobs in processes of their own, grids and Optuna studies, and the comparison of their results."""
