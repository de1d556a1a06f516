"""What runs, scores and boundaries say, put together for people: pages, folders and tables."""
