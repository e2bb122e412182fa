"""What is known of a study: one Optuna study, its trials and its metadata; imports the space and what lies below it."""
