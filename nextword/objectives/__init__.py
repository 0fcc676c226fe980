"""What is asked of the model: one file an objective."""
