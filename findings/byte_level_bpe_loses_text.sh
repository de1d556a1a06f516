#!/bin/sh
# Most would guess that byte-level BPE gives every text back: that is what it is for. As the tokenizers library
# trains it, the alphabet is the bytes that the training text has. Every other byte is dropped when text is
# encoded, without an unknown token and without a word, unless the trainer was given the whole alphabet by hand.
#
# Seen with tokenizers 0.22.1.
#
# Why it matters here: a tokenizer that loses text makes the rest easier, and its bits per byte look better than
# they are. That is why niblick decodes every document it encodes, and names what is lost.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.22.1 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

def back(text, alphabet):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["only small letters here, and a comma"] * 50, trainer)
    return tokenizer.decode(tokenizer.encode(text).ids)

text = "Here are 42 letters"
seen = [back(text, []), back(text, pre_tokenizers.ByteLevel.alphabet())]
print("tokenizers", tokenizers.__version__)
print(f"expected: {text!r}")
print(f"seen:     {seen[0]!r}, and with the alphabet given {seen[1]!r}")
sys.exit(not (seen[0] == "ere are  letters" and seen[1] == text))
PYTHON
