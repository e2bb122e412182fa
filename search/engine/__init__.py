"""Runs the trials of a study with Ray Tune; imports the monitoring, the algorithms and what lies below them."""
