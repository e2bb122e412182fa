"""What is searched: hyperparameters, their distributions and conditions; imports training and the settings."""
