#!/bin/sh
# Most would guess that a patch release of a tokenizer trainer makes the same vocabulary of the same text and
# options. With sentencepiece 0.2.1 a tab never gets a piece of its own, however often it stands in the text;
# 0.2.3 gives it one. Text of the same source is then cut into other tokens, and their number differs.
#
# Seen with sentencepiece 0.2.1 beside 0.2.3.
#
# Why it matters here: source code and tables are full of tabs, and a dataset is named by its text and its
# vocabulary size. A vocabulary must travel with its data as a file, and cannot be trained again from a recipe.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
cat > "$work/train.py" <<'PYTHON'
import io, sys
import sentencepiece

text = ["name\tsize\tcolour\n", "plain\t12\tgreen", "wide\t7\tblue"] * 40
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=300, hard_vocab_limit=False,
    character_coverage=1.0, byte_fallback=True, normalization_rule_name="identity", minloglevel=2,
)
trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
has = "\t" in [trained.id_to_piece(i) for i in range(trained.vocab_size())]
print("sentencepiece", sentencepiece.__version__)
print("seen:     a piece for the tab:", has, "tokens of a line:", len(trained.encode(text[1])))
wanted = {"0.2.1": (False, ), "0.2.3": (True, )}[sentencepiece.__version__]
sys.exit((has,) != wanted)
PYTHON
echo "expected: the same pieces from the same text and options"
for version in 0.2.1 0.2.3; do
    "$work/env/bin/pip" install --quiet --disable-pip-version-check sentencepiece==$version || exit 2
    "$work/env/bin/python" "$work/train.py"
done
