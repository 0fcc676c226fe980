"""Tokenizer training and tokenization: the vocabulary of words, subwords, symbols and bytes."""
