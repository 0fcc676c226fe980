"""The network: token ids in, hidden states and logits out, in Qwen3's layout."""
