"""Runs set against each other: groups of seeds, and what each change of a sweep gives."""
