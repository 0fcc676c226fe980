"""The network, token ids in, hidden states and logits out: a file for each part and layout."""
