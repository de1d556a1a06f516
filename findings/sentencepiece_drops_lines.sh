#!/bin/sh
# Most would guess that SentencePiece's BPE trainer, with byte fallback and full character coverage, learns from
# every line it is given. Lines that hold the character U+2585 (a bar of five eighths, common in meters and
# plots) are left out whole: the trainer keeps that character for itself. It says so once a line among its log,
# and nothing at all where that is turned down (`minloglevel`), as most programs do. Text made of such lines trains nothing; the words in them get no pieces.
#
# Seen with sentencepiece 0.2.3.
#
# Why it matters here: logs and terminal output are full of meter bars, and `--tokenizer sp:N` promised to learn
# from all the training text. niblick cuts lines at that character, which then falls back to bytes.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check sentencepiece==0.2.3 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import io, sys
import sentencepiece

def pieces(separator):
    lines = [f"zulu {separator} yankee"] * 20 + ["alpha bravo charlie"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=300, hard_vocab_limit=False,
        character_coverage=1.0, byte_fallback=True, minloglevel=1,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [trained.id_to_piece(i) for i in range(trained.vocab_size())]

seen = {code: any("zulu" in piece for piece in pieces(chr(code))) for code in (0x2584, 0x2585, 0x2586)}
print("sentencepiece", sentencepiece.__version__)
print("expected: a piece for the word beside each of U+2584, U+2585, U+2586")
print("seen:    ", {f"U+{code:X}": learned for code, learned in seen.items()})
sys.exit(seen != {0x2584: True, 0x2585: False, 0x2586: True})
PYTHON
