"""Trains one network; knows nothing of Ray, Optuna or pandas."""
