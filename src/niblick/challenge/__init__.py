"""The Parameter Golf challenge: its rules, its tracks, and the logs of its scripts."""
