"""A folder that anyone can rerun: the script, its README, and the rerun itself."""
