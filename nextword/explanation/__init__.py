"""What there is to know about a model and its run, as plain data; rendering/ draws it.

Pure functions from a model and a text to plain data.
"""
