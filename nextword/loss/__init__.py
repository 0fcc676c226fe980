"""The mistake meter: cross-entropy between what the model said and what the text says."""
