"""Data loading: text in, documents out.

Files of many formats, the built-in corpora, and the split into training and hold-out.
"""
