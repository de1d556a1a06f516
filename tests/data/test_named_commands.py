"""Every command that a refusal of data names is taken out of the sentence and run, and ends with what it promises."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import zstandard
from typer.testing import CliRunner

from niblick.artifact.foreign.torch_files import load_dictionary
from niblick.cli import app
from niblick.data.dataset import Dataset
from niblick.data.documents import read_documents
from niblick.data.prepare import convert, prepare
from niblick.data.tokenizers import given_tokenizer, make_tokenizer
from niblick.errors import ArtifactError, DataError

END = 256


def vocabulary(path: Path) -> Path:
    """256 bytes and a token between documents, as `vocab.json` writes them."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {chr(byte): byte for byte in visible} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
    path.write_text(json.dumps(letters | {"<|endoftext|>": END}))
    return path


def flat(folder: Path, *names: str) -> Path:
    folder.mkdir()
    tokens = [*b"a text", END, *b"another", END, *b"and one more", END]
    for name in names:
        np.array(tokens, "<u2").tofile(folder / name)
    return folder


def nanogpt(work: Path) -> None:
    Dataset.open(flat(work / "some shards", "train.bin", "val.bin"))


def nanogpt_as_text(work: Path) -> None:
    prepare(str(flat(work / "shards", "train.bin", "val.bin")), None, work / "none")


def one_of_nanogpts_files(work: Path) -> None:
    prepare(str(flat(work / "shards", "train.bin", "val.bin") / "train.bin"), None, work / "none")


def characters(work: Path) -> None:
    folder = flat(work / "chars", "train.bin", "val.bin", "meta.pkl")
    (folder / "input.txt").write_text("one text\n\nof paragraphs\n\n" * 50)
    Dataset.open(folder)


def characters_under_another_vocabulary(work: Path) -> None:
    folder = flat(work / "chars", "train.bin", "val.bin", "meta.pkl")
    convert(folder, "byte260", work / "none", given=given_tokenizer(str(vocabulary(work / "vocab.json"))))


def megatron(work: Path) -> None:
    prepare(str(flat(work / "megatron", "a_text_document.bin", "a_text_document.idx")), None, work / "none")


def litdata(work: Path) -> None:
    prepare(str(flat(work / "lit", "chunk-0-0.bin", "index.json") / "chunk-0-0.bin"), None, work / "none")


def llama2_c(work: Path) -> None:
    Dataset.open(flat(work / "stories", "data00.bin", "data01.bin"))


def a_dataset_as_text(work: Path) -> None:
    prepare("pydocs", None, work / "made", max_docs=20, val_docs=2)
    prepare(str(work / "made"), None, work / "none")


def a_file_as_dataset(work: Path) -> None:
    (work / "a text.txt").write_text("one text\n\nof paragraphs\n\n" * 50)
    Dataset.open(work / "a text.txt")


def shards_of_no_known_tokenizer(work: Path) -> None:
    prepare("pydocs", None, work / "made", max_docs=20, val_docs=2)
    (work / "made" / "manifest.json").unlink()
    Dataset.open(work / "made")


def no_data_at_all(work: Path) -> None:
    Dataset.open(work / "nothing here")


def a_vocabulary_to_encode_with(work: Path) -> None:
    flat(work / "FOLDER", "train.bin", "val.bin")
    make_tokenizer(str(vocabulary(work / "a vocab.json")))


@pytest.mark.parametrize(
    "refused",
    [
        nanogpt,
        nanogpt_as_text,
        one_of_nanogpts_files,
        characters,
        characters_under_another_vocabulary,
        megatron,
        litdata,
        llama2_c,
        a_dataset_as_text,
        a_file_as_dataset,
        shards_of_no_known_tokenizer,
        a_vocabulary_to_encode_with,
        no_data_at_all,
    ],
    ids=lambda function: function.__name__,
)
def test_niblick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[Path], None]) -> None:
    with pytest.raises(DataError) as caught:
        refused(tmp_path)
    (command,) = re.findall(r"`(niblick [^`]+)`", str(caught.value))
    (tmp_path / "TEXT").write_text("one text\n\nof paragraphs\n\n" * 50)
    vocabulary(tmp_path / "tokenizer.json")
    words = [{"FILE.model": "byte260"}.get(word, word) for word in shlex.split(command)]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, (command, done.output, done.exception)
    assert Dataset.open(tmp_path / "DIR").train.tokens > 20


@pytest.mark.skipif(not all(map(shutil.which, ("jq", "zstd", "xz", "bzip2", "gzip"))), reason="needs jq and packers")
@pytest.mark.parametrize("content", [[{"text": "a"}, {"text": "b"}], ["a", "b"]], ids=["objects", "strings"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".xz", ".bz2"])
def test_lists_become_lines(tmp_path: Path, suffix: str, content: list[object]) -> None:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}
    path = tmp_path / f"my data.json{suffix}"
    path.write_bytes(pack.get(suffix, bytes)(json.dumps(content).encode()))
    with pytest.raises(DataError) as caught:
        list(read_documents(str(path)))
    command = re.findall(r"`((?:cat|gzip|zstd|xz|bzip2) [^`]+)`", str(caught.value))[0]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert [d.text for d in read_documents(str(tmp_path / "my data-lines.jsonl"))] == ["a", "b"]


@pytest.mark.parametrize("form", ["old", "safetensors"])
def test_weights_are_saved_again(tmp_path: Path, form: str) -> None:
    weights = {"a.weight": torch.arange(6.0).view(2, 3)}
    path = tmp_path / "weights.pt"
    if form == "old":
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    else:
        import safetensors.torch

        safetensors.torch.save_file(weights, path)
    with pytest.raises(ArtifactError) as caught:
        load_dictionary(path)
    command = re.search(r"torch\.save\((.*?), NEW\)", str(caught.value))
    assert command is not None
    import safetensors.torch

    exec(command[0], {"torch": torch, "safetensors": safetensors, "FILE": path, "NEW": tmp_path / "new.pt"})
    assert torch.equal(load_dictionary(tmp_path / "new.pt")["a.weight"], weights["a.weight"])


def test_a_plain_pickle_names_no_command(tmp_path: Path) -> None:
    """torch.load does not read it, whatever is trusted."""
    for protocol in (2, 4, 5):
        (tmp_path / "weights.pt").write_bytes(pickle.dumps({"a": [1.0, 2.0]}, protocol=protocol))
        with pytest.raises(ArtifactError, match=r"is a plain pickle, which torch\.save did not write") as caught:
            load_dictionary(tmp_path / "weights.pt")
        assert "torch.load" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "none.json cannot be read: No such file"),
        (
            "tokenizer.json",
            b'{"model": {"type": "WordPiece", "vocab": {}}}',
            "a WordPiece vocabulary .* text is encoded",
        ),
        ("tokenizer.pkl", b"\x80", "is a pickle, and pickles of strangers are not opened; text is encoded by byte260"),
        ("tokenizer.bin", b"\x80", "is made of a tokenizer.model: give that; text is encoded by"),
        ("own.vocab", b"a\t0", r"lists the pieces of a SentencePiece model: give own\.model"),
        ("none.vocab", None, "none.vocab does not exist; text is encoded by"),
    ],
)
def test_tokenizers_of_others(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        make_tokenizer(str(tmp_path / name))
    assert "`" not in str(caught.value), "no command helps"


def test_a_model_beside_a_vocabulary(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words and more"] * 9), model_writer=model, vocab_size=24, model_type="bpe"
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')
    with pytest.raises(DataError, match="which lies beside it") as caught:
        make_tokenizer(str(tmp_path / "tokenizer.json"))
    given = re.search(r"give (\S+tokenizer\.model)", str(caught.value))
    assert given is not None
    assert make_tokenizer(given[1]).vocab_size == 24


def test_what_is_trained_decodes_nothing() -> None:
    with pytest.raises(DataError, match=r"sp:1024 trains a tokenizer, .* give its FILE\.model"):
        given_tokenizer("sp:1024")
