"""Inference: candidates, generation, evaluation, filling, classification, compression."""
