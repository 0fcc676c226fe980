"""Training, a file for each part: batches, step, loop, schedule, optimizers, checkpoints, log."""
