"""What a run tells and leaves, as types: events, scores, results. One reader and one writer for all of them."""
