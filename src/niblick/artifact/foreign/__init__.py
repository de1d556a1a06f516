"""Checkpoints that other people's programs wrote: their files, their configs and their names of tensors."""
