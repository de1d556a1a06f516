"""niblick: the laboratory for small language models under a byte cap, and for learned tokenization."""

__version__ = "0.1.0"
