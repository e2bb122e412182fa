"""What the trials of a study train, and the metrics that they report; `task_choice.py` chooses the kind of training."""
