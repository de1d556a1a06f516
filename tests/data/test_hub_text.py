"""Datasets of the hub as text: a folder that the library reads without network, and a stand-in for the hub itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from command import Niblick
from fakehub import Repo, hub_at

from niblick.data import hub_text
from niblick.data.dataset import Dataset
from niblick.data.documents import Reading
from niblick.data.hub import HubAddress
from niblick.data.prepare import prepare
from niblick.errors import DataError

library = pytest.importorskip("datasets", reason="datasets comes with niblick[hub]")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits 5 s for threads of Arrow whenever a stream is not read to its end."""
    monkeypatch.setattr(library.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


TEXTS = [f"Document {number}: the quick brown fox " * 3 for number in range(40)]
CARD = """\
---
configs:
- config_name: books
  data_files:
  - {split: train, path: books/train-*}
  - {split: test, path: books/test-*}
- config_name: news
  data_files:
  - {split: train, path: news/train-*}
---
"""


def parquet(texts: list[str], source: str) -> bytes:
    table = pyarrow.table(
        {"meta": [{"body": text} for text in texts], "source": [source] * len(texts), "n": [1.5] * len(texts)}
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    return {
        "README.md": CARD.encode(),
        "books/train-00000-of-00002.parquet": parquet(TEXTS[:20], "b0"),
        "books/train-00001-of-00002.parquet": parquet(TEXTS[20:], "b1"),
        "books/test-00000-of-00001.parquet": parquet(TEXTS[:5], "test"),
        "news/train-00000-of-00001.parquet": parquet(TEXTS[:7], "news"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub") / "web"
    for name, data in files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_folder_in_the_hubs_place(folder: Path, tmp_path: Path) -> None:
    made = prepare(f"hf:{folder}:books#meta.body", None, tmp_path / "data", val_docs=4)
    facts = made["niblick"]
    assert (made["num_docs"], facts["sources"]) == (40, ["b0", "b1"])
    assert facts["source"] == "hf:web:books:train#meta.body" and made["datasets"][0]["name"] == "web_byte260"
    pinned = {"repository": "web", "revision": None, "config": "books", "split": "train", "column": "meta.body"}
    assert facts["hub"] == pinned | {"shuffle_seed": None}
    assert str(folder) not in json.dumps(made)
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.tokenizer.decode(dataset.val.slice(0, 200)).decode().startswith(TEXTS[0])
    assert prepare(f"hf:{folder}:books#meta.body", None, tmp_path / "data", val_docs=4) == made


def test_cap_split_and_seed(folder: Path, tmp_path: Path) -> None:
    key = Reading(text_key="meta.body")
    by_split = prepare(f"hf:{folder}:books:test", None, tmp_path / "test", reading=key, max_docs=3)
    assert (by_split["num_docs"], by_split["niblick"]["sources"]) == (3, ["test"])
    hashes = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        made = prepare(f"hf:{folder}:books", None, out, reading=key, val_docs=4, shuffle_seed=seed)
        hashes.append(made["niblick"]["splits"]["train"]["text_hash"])
        assert made["num_docs"] == 40 and made["niblick"]["hub"]["shuffle_seed"] == seed
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("behind", "sentence"),
    [
        ("#meta.body", "has several configs; name one of 'books', 'news'"),
        (":nope#meta.body", "has neither a config nor a split 'nope'; name one of 'books', 'news'"),
        (":nope:train#meta.body", "has no config 'nope'; name one of 'books', 'news'"),
        (":books:nope#meta.body", "has no split 'nope'; name one of 'train', 'test'"),
        (":books", "has no column `text`; found the columns meta.body, source, n (double)"),
        (":books#n", "holds double, where text is expected"),
        ("@main:books", "is a folder, which has no revisions"),
        (":a:b:c", "is no address on the hub; write hf:OWNER/NAME"),
    ],
)
def test_what_is_not_there(folder: Path, behind: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        prepare(f"hf:{folder}{behind}", None, tmp_path / "data")
    assert sentence in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_addresses() -> None:
    assert HubAddress.parse("hf:org/name@v1.0:c:s#a.b") == HubAddress("org/name", "v1.0", ("c", "s"), "a.b")
    assert HubAddress.parse("hf:name::train") == HubAddress("name", "", ("", "train"))
    for wrong in ("hf:", "hf:a b", "hf:a/b/c", "hf:../x", "hf:a@", "hf:a#"):
        with pytest.raises(DataError, match="is no address on the hub"):
            HubAddress.parse(wrong)


def test_flags_that_do_nothing(folder: Path, tmp_path: Path, niblick: Niblick) -> None:
    out = tmp_path / "data"
    said = niblick.refused("data", "prepare", "--source", f"hf:{folder}:books", "--out", out, "--files", "*.py")
    assert "--files would do nothing" in said
    said = niblick.refused("data", "prepare", "--source", "pydocs", "--out", out, "--shuffle-seed", "1")
    assert "--shuffle-seed is for datasets of the hub" in said


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"pip install niblick\[hub\]"):
            prepare("hf:org/name", None, tmp_path / "data")
    monkeypatch.setattr(library, "__version__", "3.6.0")
    with pytest.raises(DataError, match="may run scripts that come with a dataset"):
        hub_text.hub_rows("hf:org/name", "text", None)


ASK = """
import datasets, json, sys
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1
from niblick.data.prepare import prepare
from niblick.errors import DataError
said = []
for source, out in json.loads(sys.argv[1]):
    try:
        made = prepare(source, None, out, val_docs=2, max_docs=30)
        said.append([made["num_docs"], made["niblick"]["hub"]["revision"], made["niblick"]["asked"]["revision"]])
    except DataError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def ask(address: str, sources: list[tuple[str, str]], folder: Path, **environment: str) -> list[Any]:
    """What `prepare` says in a process of its own, whose hub is at `address`."""
    home = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(sources)],
        cwd=folder,
        env={**os.environ, **home, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_hub(tmp_path: Path) -> None:
    """Streamed at a commit that the manifest pins; what has moved on, is gated, absent or cannot be reached is said."""
    with hub_at() as (hub, address):
        hub.repos["datasets/org/web"] = web = Repo()
        first = web.commit(files())
        hub.repos["datasets/org/gated"] = Repo(gated=True)
        hub.repos["datasets/org/gated"].commit(files())
        source = "hf:org/web:books#meta.body"
        asked = [
            (source, "a"),
            (source, "a"),
            ("hf:org/web@nope:books#meta.body", "b"),
            ("hf:org/absent", "b"),
            ("hf:org/gated:books#meta.body", "b"),
        ]
        made, again, revision, absent, gated = ask(address, asked, tmp_path)
        assert made == again == [30, first, first]
        assert "org/web has no revision nope" in revision
        assert "there is no dataset org/absent on the hub, or it is private" in absent
        assert "org/gated is gated: accept its conditions at https://huggingface.co/datasets/org/gated" in gated
        second = web.commit({"books/train-00000-of-00002.parquet": parquet(TEXTS[5:20], "b0")})
        moved, old = ask(address, [(source, "a"), (f"hf:org/web@{first}:books#meta.body", "a")], tmp_path)
        assert f"revision was '{first}' and is '{second}'" in moved and f"hf:REPO@{first} names" in moved
        assert old == [30, first, first]
    (none,) = ask(address, [(source, "c")], tmp_path)
    assert "the hub cannot be reached for org/web" in none and "hf:./web" in none
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "home"]
