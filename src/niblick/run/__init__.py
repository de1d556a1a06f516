"""One run from its config to its score, and everything that is done with a finished one."""
