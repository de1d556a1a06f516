"""Scores: bits per byte of a model on held-out text, and of general compressors beside it."""
