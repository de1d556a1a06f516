"""Text in the container: it comes back, it is counted, and a header that says something else of it is refused."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import golden
import pytest

from niblick.artifact import packed_text
from niblick.artifact.container import _FIXED, MAGIC, artifact_bytes, parse_artifact, parse_tensors, parse_text
from niblick.artifact.packed_text import PackedText
from niblick.errors import ArtifactError

TEXT = PackedText(b"packed" * 20, tokens=700, bytes=690, documents=10, mix="strong", memory=4)


def changed(version: int = 2, **keys: Any) -> bytes:
    """A file whose header says something else of its text, with the right digest."""
    data = artifact_bytes({}, golden.golden_tensors(), "zlib", TEXT)
    _, _, _, packed, payload = _FIXED.unpack_from(data)
    header = json.loads(zlib.decompress(data[_FIXED.size : _FIXED.size + packed]))
    header["text"] = {key: value for key, value in {**header["text"], **keys}.items() if value is not None}
    if not header["text"]:
        del header["text"]
    raw = json.dumps(header).encode()
    head = zlib.compress(raw)
    body = _FIXED.pack(MAGIC, version, len(raw), len(head), payload) + head + data[_FIXED.size + packed : -32]
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("codec", ["zlib", "zstd", "brotli", "range"])
def test_text_comes_back_beside_the_tensors(codec: str) -> None:
    tensors = golden.golden_tensors()
    plain, data = artifact_bytes({"a": 1}, tensors, codec), artifact_bytes({"a": 1}, tensors, codec, TEXT)
    found, without = parse_artifact(data), parse_artifact(plain)
    assert found.text == parse_text(data) == TEXT
    assert without.text is None and parse_text(plain) is None
    assert (plain[4], data[4]) == (1, 2)  # who reads version 1 alone is told so
    sizes = found.bytes
    assert sizes.text == len(TEXT.data)
    assert sizes.payload == without.bytes.payload
    assert len(data) == sizes.file == sizes.header + sizes.payload + sizes.text + sizes.frame
    for name, tensor in parse_tensors(plain).items():
        assert all((parse_tensors(data)[name].parts[part] == array).all() for part, array in tensor.parts.items())
        assert found.encoded[name].scheme == tensor.scheme


def test_what_is_declared_is_read_back() -> None:
    assert parse_text(changed()) == TEXT
    assert parse_artifact(changed(bytes=3)).text == PackedText(TEXT.data, 700, 3, 10, "strong", 4)


NOTHING = dict.fromkeys(("size", "tokens", "bytes", "documents", "memory", "mix"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"size": 1 << 40}, r"declares 1,099,511,627,776 bytes of text in a payload of"),
        ({"size": -1}, "counts its text in other things than whole numbers"),
        ({"tokens": True}, "counts its text in other things than whole numbers"),
        ({"documents": 1.5}, "counts its text in other things than whole numbers"),
        ({"memory": None}, "does not say of its text exactly"),
        ({"more": 1}, "does not say of its text exactly"),
        ({"mix": 3}, "does not say of its text exactly"),
        ({"tokens": 1 << 30}, r"declares 1,073,741,824 tokens in 120 bytes, past the limit of 1,168,576"),
        ({"version": 1}, "its version does not say whether it holds text"),
        (NOTHING, "its version does not say whether it holds text"),
        ({"version": 3}, "it has format version 3, this niblick reads 1 and 2"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], words: str) -> None:
    data = changed(**keys)
    for read in (parse_artifact, parse_tensors, parse_text):
        with pytest.raises(ArtifactError, match=words):
            read(data)


def test_what_could_not_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_text, "MAX_TOKENS", 600)
    with pytest.raises(ArtifactError, match="nothing was written, because it could not be read again: its text decl"):
        artifact_bytes({}, golden.golden_tensors(), "zlib", TEXT)
