"""The networks and their hyperparameters; imports the configuration and the console."""
