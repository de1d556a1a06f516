"""Scores: bits per byte of a model on held-out text, and of general compressors beside it.

The package can be called: `niblick.score(f, data)` scores any function from ids to log-probabilities (see
`any_function.score_function`).
"""
