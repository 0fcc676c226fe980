"""The vocabulary: the words, subwords, symbols and punctuation that are all the model knows."""
