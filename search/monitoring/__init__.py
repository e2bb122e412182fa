"""What is shown while a study runs: terminal, Prometheus and loggers; imports the outputs and what lies below them."""
