"""The config of a whole run."""
