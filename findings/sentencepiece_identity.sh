#!/bin/sh
# Most would guess that a SentencePiece model trained with the rule `identity`, without dummy prefix, without
# removing extra white space and with a piece for each byte, gives every text back. It does, but for one
# character: U+2581 (a lower eighth block) comes back as a space, because that is how the library itself writes
# spaces. The model has byte pieces for it, and does not use them.
#
# Seen with sentencepiece 0.2.3.
#
# Why it matters here: "lossless" is a fact that niblick records for each dataset. It encodes that character by
# its byte pieces itself, and decodes each document to find out.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check sentencepiece==0.2.3 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import io, sys
import sentencepiece

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["some plain words", "other plain words"] * 20), model_writer=model, model_type="bpe",
    vocab_size=300, hard_vocab_limit=False, byte_fallback=True, character_coverage=1.0, minloglevel=2,
    normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
)
trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
changed = {}
for code in (0x20, 0x2580, 0x2581, 0x2582, 0x2585, 0x3000, 0xFFFD):
    text = f"a{chr(code)}{chr(code)}b"
    if (back := trained.decode(trained.encode(text))) != text:
        changed[f"U+{code:04X}"] = [f"U+{ord(letter):04X}" for letter in back]
bytes_there = all(trained.piece_to_id(f"<0x{byte:02X}>") != trained.unk_id() for byte in chr(0x2581).encode())
print("sentencepiece", sentencepiece.__version__)
print("expected: every text comes back")
print("seen:    ", changed, "with byte pieces for it" if bytes_there else "")
sys.exit(changed != {"U+2581": ["U+0061", "U+0020", "U+0020", "U+0062"]} or not bytes_there)
PYTHON
