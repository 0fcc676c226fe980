"""What there is to know about a model and its run, as plain data; rendering/ draws it.

Pure functions from numbers to text, and the screen they are shown on.
"""
