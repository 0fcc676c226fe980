"""A run's journal handed on to the trackers that people look at already.

Thin readers: the journal is the truth, what they are told can be told again from it, and none of
them is ever called by what trains.
"""
