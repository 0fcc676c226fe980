"""What there is to know about a model and its run, as plain data; rendering/ draws it."""
