"""The text in an artifact: what a sidecar reads before it scores, packed, and what the header says of it."""

from __future__ import annotations

from dataclasses import dataclass

from niblick.errors import ArtifactError

MAX_TOKENS = 2**28
"""Of a text, at most: it is read token by token, and a header may say anything."""
MAX_TOKENS_A_BYTE = 1000
"""That a packed byte may stand for, beyond the first `FREE_TOKENS`: a text packs well, a bomb packs better."""
FREE_TOKENS = 2**20
_COUNTS = ("size", "tokens", "bytes", "documents", "memory")


@dataclass(frozen=True)
class PackedText:
    """Text as a mixture packed it, and what it takes to unpack it."""

    data: bytes
    tokens: int
    bytes: int
    """Of the text that the tokens give."""
    documents: int
    mix: str
    """The mixture's setting and its MiB: those that unpack it."""
    memory: int

    def entry(self) -> dict[str, int | str]:
        """What the header says of it."""
        counts = {"tokens": self.tokens, "bytes": self.bytes, "documents": self.documents, "memory": self.memory}
        return {"size": len(self.data), **counts, "mix": self.mix}


def check_entry(entry: object, payload_size: int) -> int:
    """Return the packed bytes that a header's entry declares. Raises ArtifactError for an entry that cannot be."""
    if not isinstance(entry, dict) or entry.keys() != {*_COUNTS, "mix"} or not isinstance(entry["mix"], str):
        raise ArtifactError(f"its header does not say of its text exactly {', '.join(_COUNTS)} and mix")
    if not all(type(entry[key]) is int and entry[key] >= 0 for key in _COUNTS):
        raise ArtifactError("its header counts its text in other things than whole numbers")
    size, tokens = entry["size"], entry["tokens"]
    if size > payload_size:
        raise ArtifactError(f"its header declares {size:,} bytes of text in a payload of {payload_size:,}")
    most = min(MAX_TOKENS, FREE_TOKENS + MAX_TOKENS_A_BYTE * size)
    if tokens > most:
        raise ArtifactError(
            f"its text declares {tokens:,} tokens in {size:,} bytes, past the limit of {most:,}: put less text into it"
        )
    return int(size)
