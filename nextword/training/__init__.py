"""Making the loss smaller, step by step."""
