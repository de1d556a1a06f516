"""What the experiments share: the setting that gives a model hashed n-gram tables."""

import json


def tables(sizes, rows=65_536, width=32, words=()):
    """Hashed embeddings of the n-grams of these n: of tokens (`sizes`) and of words (`words`)."""
    both = [{"n": n} for n in sizes] + [{"n": n, "words": True} for n in words]
    return "model.ngrams=" + json.dumps([one | {"rows": rows, "width": width} for one in both])
