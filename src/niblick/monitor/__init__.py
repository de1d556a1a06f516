"""What a run is doing, how long it still needs and whether it is any good; also for runs that niblick did not start."""
