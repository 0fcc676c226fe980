"""Training: batches, step, loop, schedule, optimizers, checkpoints, log."""
