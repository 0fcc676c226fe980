"""Tokenizers: a file for each thing done to a vocabulary, to tokens, and to repeats in them."""
