"""A trained network to pass on: weights, configuration and card; imports the training loop and what lies below it."""
