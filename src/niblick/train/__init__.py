"""Training: the loop, optimizers, schedule, averages, checkpoints, and what is watched meanwhile."""
