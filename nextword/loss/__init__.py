"""The loss: cross-entropy between the model's distribution and the text's next token."""
