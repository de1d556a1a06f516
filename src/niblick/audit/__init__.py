"""Checks that a score is honest: of any function, of whole scorers, of text, logs and scripts.

Each check says pass, fail or not applicable, and a failed one shows the smallest counter-example it found. docs/
honesty.md tells the real case behind each.
"""
