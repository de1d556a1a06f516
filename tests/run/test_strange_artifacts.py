"""An artifact is a stranger's word: what its header says of model, score and tokenizer is checked before it is used."""

from __future__ import annotations

import copy
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import niblick
from niblick.artifact.container import read_artifact, write_artifact
from niblick.config.run_config import override, to_dict
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.data.tokenizers import Byte256Tokenizer, ByteTokenizer, Tokenizer
from niblick.errors import ArtifactError, ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.pack.quantize import pack
from niblick.recipes.presets import get_preset
from niblick.run import loading

SCORE = {"seq_len": 64, "dtype": "float32"}


def written(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    """An artifact of a tiny model whose header says otherwise where `changes`, by dotted keys, say."""
    config = ModelConfig(
        width=16, heads=2, kv_heads=1, levels=(), main=StageConfig("T1"), vocab_size=tokenizer.vocab_size
    )
    header: dict[str, Any] = {"model": to_dict(config), "tokenizer": tokenizer.spec(), "score": copy.deepcopy(SCORE)}
    for key, value in changes.items():
        *path, last = key.split("__")
        node = header
        for name in path:
            node = node[name]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    write_artifact(folder / "artifact.nib", header, pack(dict(LM(config).state_dict())), "zlib")
    return folder / "artifact.nib"


@pytest.mark.parametrize(
    "score", [..., None, [], {}, "x", {"seq_len": 64}, SCORE | {"seq_len": 0}, SCORE | {"dtype": 3}]
)
def test_a_header_that_does_not_say_how_it_is_scored(tmp_path: Path, score: Any) -> None:
    path = written(tmp_path, ByteTokenizer(), score=score)
    with pytest.raises(ArtifactError, match="does not say how its model is scored"):
        niblick.load(path)
    with pytest.raises(ArtifactError, match="does not say how its model is scored"):
        loading.declared_score(read_artifact(path), path)


@pytest.mark.parametrize("key", ["width", "main__layout", "vocab_size"])
def test_a_model_larger_than_its_file_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    value = {"width": 1 << 30, "main__layout": "T9999", "vocab_size": 65_536}[key]
    changes = {f"model__{key}": value} | ({"tokenizer__vocab_size": value} if key == "vocab_size" else {})
    path = written(tmp_path, ByteTokenizer(), **changes)
    monkeypatch.setattr(loading, "build_model", lambda *a, **k: pytest.fail("it was made"))
    with pytest.raises(ArtifactError, match=r"declares a model of [\d,]+ weights and holds [\d,]+"):
        niblick.load(path)


def test_a_tokenizer_of_other_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ByteTokenizer(), tokenizer__kind=Byte256Tokenizer.kind)
    with pytest.raises(ArtifactError, match="is a model of 260 tokens, and its tokenizer byte256 has 256"):
        niblick.load(path)


def test_what_is_no_artifact_is_not_read_to_its_end(tmp_path: Path) -> None:
    large = tmp_path / "large.nib"
    for start, words in ((b"text", "it begins with b'text'"), (b"nib\x1a\1\0", "where its first lines declare")):
        with large.open("wb") as file:
            file.write(start)
            file.truncate(3 << 30)
        tracemalloc.start()
        with pytest.raises(ArtifactError, match=words):
            read_artifact(large)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_a_run_over_subwords_loads_whatever_its_preset_was_made_for(tmp_path: Path) -> None:
    """`data prepare` says `niblick train hnet-small … model.vocab_size=300`, and hnet-small is of byte260."""
    texts = [f"Document {n}: the quick brown fox jumps over lazy dogs {n * n}" for n in range(300)]
    prepare(texts, "sp:300", tmp_path / "data", val_docs=2, workers=1)
    settings = [f"data.path={tmp_path / 'data'}", "model.vocab_size=300"]
    config = override(get_preset("hnet-small"), settings)
    assert config.tokenizer == "byte260"
    folder = tmp_path / "runs" / "one"
    (folder / "artifacts" / "a").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    tokenizer = Dataset.open(tmp_path / "data").tokenizer
    written(folder / "artifacts" / "a", tokenizer)
    loaded = niblick.load("one", runs=tmp_path / "runs")
    assert loaded.tokenizer.name == tokenizer.name
    with pytest.raises(ConfigError, match=r"seed=\d+ must be a number of 64 bits"):
        loaded.generate("the", seed=1 << 70)
