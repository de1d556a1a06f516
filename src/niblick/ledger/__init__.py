"""What many runs say in summary: their facts, lists, tags, notes and ranks."""
