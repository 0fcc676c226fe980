"""Inference: a file for each thing that a trained model, or what it is compared with, can do."""
