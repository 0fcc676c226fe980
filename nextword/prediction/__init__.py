"""Asking a trained model: candidates, generated text, how well it does on a text."""
