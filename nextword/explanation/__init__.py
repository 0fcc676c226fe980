"""What there is to know of a model and its run, as plain data, a file for each question."""
