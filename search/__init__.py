"""Searches hyperparameters: Ray Tune runs the trials, Optuna proposes them, pandas summarises them."""
