"""What happened, in plain words.

Pure functions from numbers to text, and the screen they are shown on.
"""
