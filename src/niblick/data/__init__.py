"""From text to batches: documents, tokenizers, shards and their index, the loader."""
