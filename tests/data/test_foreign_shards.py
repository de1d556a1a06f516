"""Token shards of other projects: named in the refusal, and turned back into text by the command that it names."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from niblick.cli import app
from niblick.data.dataset import Dataset
from niblick.data.prepare import convert, prepare
from niblick.data.tokenizers import given_tokenizer, make_tokenizer
from niblick.data.vocabularies import Vocabulary, _letters
from niblick.errors import DataError

TEXTS = ["The first.\n\nTwo paragraphs.", "naïve 日本語 🙂", "a model, a decoder", "\x00\t end "]
WORDS = [bytes([byte]) for byte in range(256)] + [b"The", b" first", b"model", b"decoder", "ï".encode()]
END = 50256


def vocab() -> dict[str, int]:
    """A small vocabulary as GPT-2's is written, its token between documents where GPT-2's is."""
    letters = {byte: letter for letter, byte in _letters().items()}
    words = {"".join(letters[bytes([byte])] for byte in word): token for token, word in enumerate(WORDS)}
    return words | {"<|endoftext|>": END}


def tokens(text: str) -> list[int]:
    pattern = "|".join(re.escape(word.decode("latin-1")) for word in sorted(WORDS, key=len, reverse=True))
    pieces = re.findall(f"(?s:{pattern})", text.encode().decode("latin-1"))
    return [WORDS.index(piece.encode("latin-1")) for piece in pieces]


def begun(texts: list[str]) -> list[int]:
    return [token for text in texts for token in (END, *tokens(text))]


def ended(texts: list[str]) -> list[int]:
    return [token for text in texts for token in (*tokens(text), END)]


def headed(path: Path, ids: list[int], magic: int = 20240520, version: int = 1, dtype: str = "<u2") -> None:
    path.write_bytes(struct.pack("<256i", magic, version, len(ids), *[0] * 253) + np.array(ids, dtype).tobytes())


def nanogpt(folder: Path) -> None:
    np.array(ended(TEXTS[1:]), "<u2").tofile(folder / "train.bin")
    np.array(ended(TEXTS[:1]), "<u2").tofile(folder / "val.bin")


def llm_c(folder: Path) -> None:
    whole = begun(TEXTS[1:])
    headed(folder / "some_text_train_000001.bin", whole[:9])
    headed(folder / "some_text_train_000002.bin", whole[9:])
    headed(folder / "some_text_val_000000.bin", begun(TEXTS[:1]))


def modded(folder: Path) -> None:
    headed(folder / "fineweb_train_000001.bin", begun(TEXTS[1:]))
    headed(folder / "fineweb_val_000000.bin", begun(TEXTS[:1]))


def llama3(folder: Path) -> None:
    headed(folder / "text_train.bin", begun(TEXTS[1:]), 20240801, 7, "<u4")
    headed(folder / "text_val.bin", begun(TEXTS[:1]), 20240801, 7, "<u4")


def llama3_called_as_the_challenges(folder: Path) -> None:
    headed(folder / "fineweb_train_000001.bin", begun(TEXTS[1:]), 20240801, 7, "<u4")
    headed(folder / "fineweb_val_000000.bin", begun(TEXTS[:1]), 20240801, 7, "<u4")


def on_both_sides(folder: Path) -> None:
    for name, texts in (("train", TEXTS[1:]), ("val", TEXTS[:1])):
        np.array([token for text in texts for token in (END, *tokens(text), END)], "<u2").tofile(folder / f"{name}.bin")


def build_nanogpt(folder: Path) -> None:
    np.save(folder / "edufineweb_train_000001.npy", np.array(begun(TEXTS[1:]), np.uint16))
    np.save(folder / "edufineweb_val_000000.npy", np.array(begun(TEXTS[:1]), np.uint16))


def hub(path: Path) -> Path:
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}
    added = [{"id": END, "content": "<|endoftext|>", "special": True}]
    words = {word: token for word, token in vocab().items() if token != END}
    content = {"model": {"type": "BPE", "vocab": words}, "decoder": decoder, "added_tokens": added}
    path.write_text(json.dumps(content))
    return path


def ranks(path: Path) -> Path:
    words = [*WORDS, *(b"unused%d" % number for number in range(END - len(WORDS)))]
    path.write_bytes(b"".join(base64.b64encode(word) + b" %d\n" % rank for rank, word in enumerate(words)))
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (nanogpt, r"nanoGPT's \(train\.bin: uint16 without header\)"),
        (llm_c, r"llm\.c's \(some_text_train_000001\.bin: the challenge's header over GPT-2's tokens\)"),
        (modded, "begin with token 50256, so they are GPT-2's tokens, as llm.c and modded-nanogpt"),
        (llama3, r"llm\.c's for Llama 3 \(text_train\.bin: uint32\)"),
        (
            llama3_called_as_the_challenges,
            r"llm\.c's for Llama 3 \(fineweb_train_000001\.bin: uint32\)",
        ),
        (on_both_sides, r"nanoGPT's \(train\.bin: uint16 without header\)"),
        (build_nanogpt, r"build-nanogpt's \(edufineweb_train_000001\.npy: an array of uint16\)"),
    ],
)
def test_named_and_converted(tmp_path: Path, write: Callable[[Path], None], name: str) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder)
    with pytest.raises(DataError, match=rf"{name}.* `niblick data convert .*shards --given tokenizer\.json"):
        Dataset.open(folder, usual="byte260")
    (tmp_path / "gpt2").mkdir()
    vocab_json = tmp_path / "gpt2" / "vocab.json"
    vocab_json.write_text(json.dumps(vocab()))
    for number, file in enumerate((vocab_json, hub(tmp_path / "tokenizer.json"), ranks(tmp_path / "r50k.tiktoken"))):
        out = tmp_path / f"out{number}"
        manifest = convert(folder, "byte260", out, given=given_tokenizer(str(file)))
        dataset = Dataset.open(out)
        for split, texts in ((dataset.val, TEXTS[:1]), (dataset.train, TEXTS[1:])):
            assert split.index is not None
            spans = zip(split.index["offset"].tolist(), split.index["tokens"].tolist(), strict=True)
            assert [dataset.tokenizer.decode(split.slice(*span)).decode() for span in spans] == texts
        assert manifest["niblick"]["converted_from"]["dataset"] == "shards"


def test_a_document_that_goes_on_elsewhere(tmp_path: Path) -> None:
    """Of the training split it is left out if it cannot be read; in the validation split that is an error."""
    given = Vocabulary.read(hub(tmp_path / "tokenizer.json"))
    folder = tmp_path / "shards"
    folder.mkdir()
    headed(folder / "fineweb_train_000001.bin", begun(TEXTS)[: len(begun(TEXTS[:1])) + 20])
    headed(folder / "fineweb_val_000000.bin", begun(TEXTS[:1]))
    manifest = convert(folder, "byte260", tmp_path / "out", given=given)
    assert manifest["niblick"]["splits"]["train"]["documents"] == 1
    headed(folder / "fineweb_val_000000.bin", begun(["ends in 日"])[:-1])
    with pytest.raises(DataError, match="document 0 of the val split ends inside a character"):
        convert(folder, "byte260", tmp_path / "other", given=given)


def test_others_are_named(tmp_path: Path) -> None:
    def folder(*names: str) -> Path:
        path = tmp_path / names[0]
        path.mkdir()
        for name in names:
            (path / name).write_bytes(b"\1\0\2\0")
        return path

    known: dict[Path, str] = {
        folder("a_text_document.bin", "a_text_document.idx"): "Megatron-LM's",
        folder("chunk-0-0.bin", "index.json"): "litdata's",
        folder("data00.bin", "data01.bin"): "llama2.c's",
        folder("train.bin", "val.bin", "meta.pkl", "input.txt"): "nanoGPT's characters .*--source .*input.txt",
        folder("readme.txt"): "holds no fineweb_train",
    }
    for path, words in known.items():
        with pytest.raises(DataError, match=words):
            Dataset.open(path)
        if "characters" not in words and "data" not in path.name:
            with pytest.raises(DataError, match=words if "'s" in words else "holds no token shards"):
                convert(path, "byte260", tmp_path / "out", given=given_tokenizer("byte260"))
    with pytest.raises(DataError, match="is a file; give the folder of the shards"):
        Dataset.open(tmp_path / "readme.txt" / "readme.txt")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train.bin", b"\1\0\2", "has 3 bytes, which are no uint16 tokens"),
        ("train.npy", b"\x93NUMPY", "is no array of tokens"),
        ("x_train.bin", struct.pack("<256i", 20240801, 7, 9, *[0] * 253), "its header promises 9 tokens of 4"),
        ("x_train.bin", struct.pack("<256i", 20240520, 1, 9, *[0] * 253), "promises 9 tokens"),
    ],
)
def test_damaged(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "shards", "byte260", tmp_path / "out", given=given_tokenizer("byte260"))


@pytest.mark.parametrize("dtype", ["<u4", "<i8"])
def test_wide_tokens_are_not_read_as_pairs(tmp_path: Path, dtype: str) -> None:
    """Without a header nothing says how wide they are, but every second uint16 is next to nothing."""
    given = Vocabulary.read(hub(tmp_path / "tokenizer.json"))
    (tmp_path / "shards").mkdir()
    np.array(ended(TEXTS), dtype).tofile(tmp_path / "shards" / "train.bin")
    with pytest.raises(DataError, match=r"train\.bin holds tokens of 4 bytes or more"):
        convert(tmp_path / "shards", "byte260", tmp_path / "out", given=given)
    (tmp_path / "shards" / "train.bin").unlink()
    np.save(tmp_path / "shards" / "x_train.npy", np.array(ended(TEXTS), np.uint32))
    assert convert(tmp_path / "shards", "byte260", tmp_path / "out", given=given)["num_docs"] == len(TEXTS)


@pytest.mark.parametrize("name", ["valid.bin", "text_validation_000000.bin"])
def test_other_names_of_the_validation_split(tmp_path: Path, name: str) -> None:
    given, folder = Vocabulary.read(hub(tmp_path / "tokenizer.json")), tmp_path / "shards"
    folder.mkdir()
    np.array(ended(TEXTS[1:]), "<u2").tofile(folder / "train.bin")
    np.array(ended(TEXTS[:1]), "<u2").tofile(folder / name)
    assert convert(folder, "byte260", tmp_path / "out", given=given)["num_val_docs"] == 1


def test_folders_of_other_tokens_and_names_of_other_vocabularies(tmp_path: Path) -> None:
    given, folder = Vocabulary.read(hub(tmp_path / "tokenizer.json")), tmp_path / "shards"
    folder.mkdir()
    (folder / "train.pt").write_bytes(b"?")
    with pytest.raises(DataError, match=r"holds no token shards; there: train\.pt; write tokens of other forms as"):
        convert(folder, "byte260", tmp_path / "out", given=given)
    for name in ("gpt2", "cl100k_base", str(tmp_path)):
        with pytest.raises(
            DataError, match=r"there is no tokenizer .*; give the file of the vocabulary .* tokenizer\.json"
        ):
            given_tokenizer(name)


def test_a_split_that_is_not_there_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    np.array(ended(TEXTS), "<u2").tofile(folder / "train.bin")
    words = [
        "data",
        "convert",
        str(folder),
        "--given",
        str(hub(tmp_path / "tokenizer.json")),
        f"--out={tmp_path / 'out'}",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "there is no validation split: nothing can be scored on this data" in done.output


def test_arrays_that_are_no_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "x_train.npy", np.zeros(3, np.float32))
    with pytest.raises(DataError, match=r"holds float32 \[3\], where one row of tokens .*; give an array of tokens"):
        convert(tmp_path, "byte260", tmp_path / "out", given=given_tokenizer("byte260"))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_what_other_arrays_are_told_makes_tokens_of_them(tmp_path: Path, dtype: type) -> None:
    given, folder = Vocabulary.read(hub(tmp_path / "tokenizer.json")), tmp_path / "of some"
    folder.mkdir()
    np.save(folder / "x_train.npy", np.array([ended(TEXTS)], dtype))
    with pytest.raises(DataError, match=r"where one row of tokens \(uint16 or uint32\) is expected; write") as refused:
        convert(folder, "byte260", tmp_path / "out", given=given)
    command = re.search(r"`(python .*)`", str(refused.value))
    assert command is not None
    subprocess.run([sys.executable, *shlex.split(command[1])[1:]], check=True)
    assert convert(folder, "byte260", tmp_path / "out", given=given)["num_docs"] == len(TEXTS)


def test_a_document_that_ends_inside_a_character_is_left_out_and_counted(tmp_path: Path) -> None:
    words = ["--given", str(hub(tmp_path / "tokenizer.json")), f"--out={tmp_path / 'out'}", "--json"]
    (tmp_path / "shards").mkdir()
    whole = begun(["whole", "cut: 日本"])
    np.array(whole[:-1], "<u2").tofile(tmp_path / "shards" / "train.bin")
    np.array(begun(TEXTS[:1]), "<u2").tofile(tmp_path / "shards" / "val.bin")
    done = CliRunner().invoke(app, ["data", "convert", str(tmp_path / "shards"), *words])
    assert done.exit_code == 0
    manifest = json.loads(done.output)
    cut = len(tokens("cut: 日本")) - 1
    assert manifest["niblick"]["converted_from"]["cut_off"] == {"documents": 1, "tokens": cut}
    assert manifest["niblick"]["splits"]["train"]["documents"] == 1
    shutil.rmtree(tmp_path / "out")
    done = CliRunner().invoke(app, ["data", "convert", str(tmp_path / "shards"), *words[:-1]])
    assert f"left out: the last training document, of which the first {cut} tokens are here" in done.output


def test_they_decode_only(tmp_path: Path) -> None:
    for name in (str(hub(tmp_path / "tokenizer.json")), str(ranks(tmp_path / "r50k.tiktoken"))):
        with pytest.raises(DataError, match=rf"decodes shards .*--given {name}.* by byte260, byte256, .*sp:VOCAB"):
            make_tokenizer(name)
    given = Vocabulary.read(hub(tmp_path / "tokenizer.json"))
    for use in (given.spec, lambda: given.encode_batch(["a"])):
        with pytest.raises(DataError, match="is a vocabulary of the transformers library or of tiktoken"):
            use()
    with pytest.raises(DataError, match="token 50257 is outside"):
        given.decode(np.array([50257]))
    assert given.decode(np.array([END])) == b""


@pytest.mark.parametrize(("ranks", "between"), [(50256, 50256), (100256, 100257), (151643, 151643)])
def test_the_token_between_texts_of_tiktoken(tmp_path: Path, ranks: int, between: int) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(b"".join(b"YQ== %d\n" % rank for rank in range(ranks)))
    vocabulary = Vocabulary.read(path)
    assert (vocabulary.bos_id, vocabulary.vocab_size) == (between, between + 1)
    assert vocabulary.decode(np.array([0, between, ranks - 1])) == b"aa"


def whole(key: str, value: object) -> bytes:
    """A vocabulary with one part of it replaced."""
    content = {"model": {"type": "BPE", "vocab": {"a": 0, "<s>": 1}}, "decoder": {"type": "ByteLevel"}}
    return json.dumps({**content, key: value}).encode()


def test_tokens_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    """Their text would be missing without a word."""
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({word: token for word, token in vocab().items() if token != ord("T")}))
    (tmp_path / "shards").mkdir()
    nanogpt(tmp_path / "shards")
    with pytest.raises(DataError, match=f"token {ord('T')} is not defined in .*; give the vocabulary that the shards"):
        convert(tmp_path / "shards", "byte260", tmp_path / "out", given=given_tokenizer(str(path)))
    assert not (tmp_path / "out").exists()
    assert Vocabulary.read(path).decode(np.array([], np.uint16)) == b""


def test_commands_that_are_named_work(tmp_path: Path) -> None:
    """For one file of foreign shards, and for a folder that is called as the challenge's."""
    given = hub(tmp_path / "tokenizer.json")
    for write, file in ((nanogpt, "train.bin"), (modded, "fineweb_train_000001.bin")):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder)
        for source in (folder, folder / file):
            with pytest.raises(DataError, match="holds token shards") as caught:
                prepare(str(source), "byte260", tmp_path / "out")
            command = re.search("`niblick (.*?) --out DIR`", str(caught.value))
            assert command
            words = [word.replace("tokenizer.json", str(given)) for word in shlex.split(command[1])]
            out = tmp_path / f"out-{folder.name}-{source.name}"
            assert CliRunner().invoke(app, [*words, f"--out={out}"]).exit_code == 0
        with pytest.raises(DataError, match=r"convert|give the folder of the shards: ") as caught:
            convert(folder / file, "byte260", tmp_path / "out")
        assert "prepare" not in str(caught.value)
    folder = tmp_path / "unknown"
    folder.mkdir()
    headed(folder / "fineweb_train_000001.bin", [1, 5, 6])
    with pytest.raises(DataError, match=r"nothing says which tokenizer made them; `.* --given FILE\.model --out DIR`"):
        prepare(str(folder), "byte260", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80", "is no JSON"),
        (b"[]", "holds a list"),
        (b'{"model": {"type": "WordPiece", "vocab": {}}}', "a WordPiece vocabulary with the decoder none"),
        (
            b'{"model": {"type": "Unigram", "vocab": []}, "decoder": {"type": "Metaspace"}}',
            "Unigram .*Metaspace.*text is encoded by",
        ),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}}, "decoder": {"type": "ByteLevel"}}', "none of the tokens"),
        (b'{"<s>": -1}', "-1 is no token"),
        (b'{"<s>": 99999999999}', "99999999999 is no token"),
        (b'{"a": true, "<s>": 2}', "True is no token"),
        (rb'{"\ud800": 1, "<s>": 2}', r"'\\ud800' holds half a surrogate pair"),
        (whole("added_tokens", [1]), "`added_tokens` holds 1, where an id and a content are expected"),
        (whole("added_tokens", {"a": 1}), r"`added_tokens` is \{'a': 1\}, where a list is expected"),
        (whole("added_tokens", 5), "`added_tokens` is 5, where a list is expected"),
        (whole("added_tokens", [{"id": 1, "content": None}]), "`added_tokens` holds .*where an id and a content"),
        (whole("added_tokens", [{"id": 1, "content": "\ud800"}]), r"'\\ud800' holds half a surrogate pair"),
        (whole("added_tokens", [{"content": "<s>"}]), "None is no token"),
        (whole("decoder", {"type": "ByteLevel", "decoders": 5}), "`decoders` is 5, where a list is expected"),
    ],
)
def test_vocabularies_of_other_kinds(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Vocabulary.read(path)
    if content == b"\x80":
        path = tmp_path / "x.tiktoken"
        path.write_bytes(b"not base64 at all\n")
        with pytest.raises(DataError, match=r"no \.tiktoken file"):
            Vocabulary.read(path)
        with pytest.raises(DataError, match="cannot be read"):
            Vocabulary.read(tmp_path / "none.json")
