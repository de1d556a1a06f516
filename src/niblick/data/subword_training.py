"""Training a SentencePiece BPE model on a dataset's own training documents, such that every text comes back.

No normalization, no dummy prefix, white space kept, a byte piece for each of the 256 bytes. A newline is a piece of
its own, so that pieces never reach across lines; runs of spaces may become pieces, for code.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import sentencepiece

from niblick.errors import DataError

Normalization = Literal["identity", "nmt_nfkc"]

TRAINING_BYTES = 32 << 20
"""So much of the text, from its start, is enough for the merges of any vocabulary that fits uint16."""

MIN_VOCAB, MAX_VOCAB = 300, 65536
_FIXED_PIECES = 4 + 1 + 256
_MAX_LINE = 4000
_COVERAGE = 0.9995

_RESERVED = "\u2581\u2585"
"""What SentencePiece writes for a space and for what it does not know. Its trainer drops every line with the second."""


def train_subwords(texts: Iterable[str], vocab_size: int, normalization: Normalization = "identity") -> bytes:
    """Train on `texts` and return the content of the .model file: pad 0, bos 1, eos 2, unk 3.

    `nmt_nfkc` makes a model the challenge's way, which loses newlines and runs of spaces. Raises DataError if the
    vocabulary size is out of range or too large for the text.
    """
    if not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
        raise DataError(f"sp:{vocab_size} is out of range; a subword vocabulary has {MIN_VOCAB} to {MAX_VOCAB} tokens")
    lines = list(_lines(texts))
    alphabet = _alphabet(lines, vocab_size)
    if not alphabet:
        found = "nothing but line ends and reserved characters" if lines else "no training documents"
        raise DataError(f"sp:{vocab_size} needs text to be trained on; there are {found}")
    # Not by the trainer's character_coverage, which it refuses below 0.98.
    outside = re.compile(f"[^{re.escape(alphabet)}]+")
    lines = [part for line in lines for part in outside.split(line) if part]
    options: dict[str, Any] = {"normalization_rule_name": normalization}
    if normalization == "identity":
        options |= {
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
            "user_defined_symbols": ["\n"],
        }
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            byte_fallback=True,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            max_sentence_length=8 * _MAX_LINE,
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))
        if most is None:
            raise DataError(
                f"training sp:{vocab_size} failed ({error}); choose another size or give more text"
            ) from error
        raise DataError(
            f"the text is too small for sp:{vocab_size}: it yields {most[1]} tokens at most; "
            "choose fewer or give more text"
        ) from error
    return model.getvalue()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines for the trainer, long ones cut (it would skip them), until there are enough."""
    left = TRAINING_BYTES
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), _MAX_LINE):
                part = line[start : start + _MAX_LINE]
                left -= len(part.encode())
                yield part
        if left <= 0:
            return


def _alphabet(lines: list[str], vocab_size: int) -> str:
    """The characters that get a piece of their own: nearly all that occur, but no more than half of the free pieces.

    Text in many scripts has more characters than a small vocabulary has room for; the rest is written in bytes,
    and so is what SentencePiece keeps for itself.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    for character in _RESERVED:
        del counts[character]
    total, covered, alphabet = counts.total(), 0, ""
    for character, count in counts.most_common((vocab_size - _FIXED_PIECES) // 2):
        if covered >= _COVERAGE * total:
            break
        covered += count
        alphabet += character
    return alphabet
