"""The artifact of a model: one file of configuration and compressed weights, its codecs, and reading it safely."""
