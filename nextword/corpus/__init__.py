"""Data loading: text in, documents out; a file for each question about where text comes from.

Files of many formats, the built-in corpora, and the split into training and hold-out.
"""
