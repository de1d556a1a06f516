"""The edge of the Python face: what does not fit is one sentence, and nothing is left behind."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from notebook import TOY

import niblick as nb
from niblick.data.documents import Reading
from niblick.errors import ArtifactError, ConfigError, DataError
from niblick.files import read_json

PATHS = ("audit", "export", "fit", "load", "open_run", "remove", "resume", "show")
MORE: dict[str, tuple[str, ...]] = {"prepare": ("data/new",), "push": ("pushed",), "train": ("data/book",)}


@pytest.mark.parametrize("value", [None, 5, b"toy-1", "a\0b", "a" * 300], ids=["None", "5", "bytes", "NUL", "long"])
@pytest.mark.parametrize("name", [*PATHS, *MORE])
def test_paths_of_every_function(folder: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="does not fit: ") as caught:
        getattr(nb, name)(value, *MORE.get(name, ()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*PATHS[:-1], "compare", "plot", "train"])
def test_a_folder_of_runs_that_is_a_file(folder: Path, name: str) -> None:
    given = ("toy-1", "toy-2")[: 2 if name in ("compare", "train") else 1]
    with pytest.raises(ConfigError, match=r"runs='book.txt' does not fit: it is a file: give a folder"):
        getattr(nb, name)(*given, runs="book.txt")


REFUSED: list[tuple[Any, str]] = [
    (lambda: nb.compare(["toy-1", "toy-2"]), r"give each as an argument of its own, as \*targets"),
    (lambda: nb.plot([]), r"give each as an argument of its own, as \*targets"),
    (lambda: nb.remove(), r"nothing to move away: name runs \(`nb.runs\(\)` lists them"),
    (lambda: nb.runs("book.txt"), "folder='book.txt' does not fit: it is a file"),
    (lambda: nb.chunks("toy-1", "abc"), "model='toy-1' does not fit: give a Loaded"),
    (lambda: nb.audit("toy-1", prove=1.5), "prove=1.5 does not fit: give a whole number, at least 0"),
    (lambda: nb.fit("toy-1", tokens=0), "tokens=0 does not fit: give a whole number, at least 1"),
    (lambda: nb.fit("toy-1", artifact_bytes="20000"), "artifact_bytes='20000' does not fit: give a whole number"),
    (lambda: nb.compress("\ud800", "toy-1"), "character 1 is .*, which UTF-8 cannot hold"),
    (lambda: nb.compress(Path("book.txt"), "toy-1"), "give str, or bytes, as Path"),
    (lambda: nb.decompress("text", "toy-1"), "stream='text' does not fit: give bytes"),
    (lambda: nb.grid(5), "values=5 does not fit: give a mapping"),
    (lambda: nb.pack(5), "state=5 does not fit: give a mapping"),
    (lambda: nb.score(5, "data/book"), "f=5 does not fit: give a function"),
    (lambda: nb.train("hnet-small", "data/book", name=5), "name=5 does not fit: give a str"),
    (lambda: nb.train("hnet-small", "data/book", track=5), "track=5 does not fit: give a str"),
    (lambda: nb.train("hnet-small", "data/book", overrides=["a=1"]), "overrides=.* does not fit: give a mapping"),
    (lambda: nb.train("hnet-small", "data/book", name="a" * 300), r"'a+\.\.\.a+' is no name of a run"),
    (
        lambda: nb.train("hnet-small", "data/book", seed=1 << 64),
        "seed=18446744073709551616 must be a number of",
    ),
    (lambda: nb.train("hnet-small", "book.txt"), r"book.txt is a file; .*`nb.prepare\('book.txt', DIR\)`"),
    (lambda: nb.prepare("book.txt", ""), "out='' does not fit: it is empty: give a folder"),
    (lambda: nb.prepare("book.txt", "data/new", tokeniser="byte260"), "no argument 'tokeniser' .nearest: tokenizer"),
    (lambda: nb.prepare("book.txt", "data/new", val_share="0.1"), "val_share='0.1' does not fit: give a number"),
    (lambda: nb.prepare("book.txt", "data/new", reading=5), "reading=5 does not fit: give a Reading"),
    (lambda: nb.Data(None), "path=None does not fit"),
    (lambda: nb.Data("nope").dataset, r"no data directory nope; make some with `nb.prepare\('pydocs', DIR"),
    (lambda: nb.Sweep("hnet-small", seeds=["a"]), r"seeds\[0\]='a' does not fit"),
    (lambda: nb.audit("data/book/manifest.json"), "is a table, and no table is read"),
    (lambda: nb.audit("book.txt"), "nothing in it could be checked"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_does_not_fit_is_one_sentence(folder: Path, number: int) -> None:
    call, sentence = REFUSED[number]
    with pytest.raises(nb.NiblickError, match=sentence) as caught:
        call()
    assert "--" not in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("data/new").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tokenizer": "nope.model"}, "nope.model cannot be read"),
        ({"workers": 0}, "workers=0 does not fit"),
        ({"train_shards": 3}, "leave train_shards= out"),
        ({"source": "nope.txt"}, "there is no source 'nope.txt'"),
        ({"normalization": "nope"}, "give 'identity' or 'nmt_nfkc'"),
    ],
)
def test_data_that_are_there_hide_no_wrong_argument(folder: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(nb.NiblickError, match=words):
        nb.prepare(**{"source": "book.txt", "out": "data/book"} | more)


def test_prepare_takes_what_its_function_takes(folder: Path) -> None:
    told: list[int] = []
    again = nb.prepare("book.txt", "data/book", progress=None, reading=None)  # in the same way: it stays
    assert again.path == Path("data/book")
    nb.prepare(["a text", "", "another"], "data/rows", skip_empty=True, progress=lambda count, size: told.append(count))
    assert nb.Data("data/rows").dataset.manifest["niblick"]["reading"] == {"skip_empty": True}
    assert told
    with pytest.raises(ConfigError, match="leave text_key=, separator= and the like out"):
        nb.prepare("book.txt", "data/new", reading=Reading(), text_key="content")


SWEEPS: list[tuple[dict[str, Any], str]] = [
    ({"seeds": ["a"]}, r"seeds\[0\]='a' does not fit"),
    ({"workers": "2"}, "workers='2' does not fit"),
    ({"axes": {"model.width": ["wide"]}}, "model.width='wide' does not fit"),
    ({"axes": {"model.width": 5}}, "for values: give a list"),
    ({"name": "../x"}, "is no name of a sweep"),
    ({"name": "latest"}, "is no name of a sweep"),
    ({"data": "nope"}, "no data directory nope"),
    ({"target": nb.Sweep("hnet-small")}, "says its axes, data and settings itself"),
]


@pytest.mark.parametrize("number", range(len(SWEEPS)))
def test_a_sweep_is_refused_before_anything_starts(folder: Path, number: int) -> None:
    more, sentence = SWEEPS[number]
    before = sorted(Path().rglob("*"))
    usual = {"target": "hnet-small", "axes": {"model.width": [16]}, "data": "data/book", "name": "refused"}
    with pytest.raises(nb.NiblickError, match=sentence):
        nb.sweep(**usual | more)
    assert sorted(Path().rglob("*")) == before


def test_what_is_not_there_can_be_shown(folder: Path) -> None:
    assert repr(nb.Run("nope")) == "<Run nope: not there>" and "broken" in nb.Run("nope")._repr_html_()
    assert repr(nb.Artifact("nope")) == "<Artifact nope: not there>"
    assert repr(nb.Data("nope")).startswith("<Data nope: there is no data directory nope")
    for name in ("score", "result", "config", "curve", "artifacts"):
        with pytest.raises(ConfigError, match=r"there is no run in nope: nb.open_run\('nope'\) looks one up"):
            getattr(nb.Run("nope"), name)
    for name in ("score", "bytes", "record"):
        with pytest.raises(ArtifactError, match="there is no artifact nope"):
            getattr(nb.Artifact("nope"), name)
    for each in (nb.Run("nope"), nb.Artifact("nope")):
        with pytest.raises(nb.NiblickError, match="there is no"):
            each.load()


def test_an_export_takes_the_place_of_nothing(folder: Path, run: nb.Run) -> None:
    official = run.artifacts[0]
    before = official.path.read_bytes(), read_json(run.path / "result.json")
    scores = official.path.with_name("scores.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"is the official artifact of runs.toy-1 \(export.scheme was .*name='"):
        nb.export(run, name=official.name, scheme="int6")
    assert nb.export(run).path == official.path  # a cell that runs twice
    assert (official.path.read_bytes(), read_json(run.path / "result.json")) == before
    assert official.path.with_name("scores.jsonl").read_bytes() == scores
    six = nb.export(run, scheme="int6", name="six")
    made = six.path.stat().st_mtime_ns
    assert nb.export(run, scheme="int6", name="six").path.stat().st_mtime_ns == made
    for other in ({"scheme": "int4"}, {"scheme": "int6", "score__scorer": "sliding", "score__stride": 32}):
        with pytest.raises(ConfigError, match=r"has an artifact six already \(.*was .* and is .*name='six-2'"):
            nb.export(run, name="six", **other)
    assert six.path.stat().st_mtime_ns == made
    small = f"fit-{six.bytes}"
    nb.export(run, scheme="int5", name=small)
    with pytest.raises(ConfigError, match=rf"has an artifact {small} already .*fit to another number of bytes"):
        nb.fit(run, artifact_bytes=six.bytes, codec="zlib", tokens=256)
    assert nb.push(run, "pushed") == "pushed"  # still as it finished


def test_a_damaged_official_artifact_can_be_packed_again(folder: Path, run: nb.Run) -> None:
    lost = Path("runs/lost")
    shutil.copytree(run.path, lost)
    name = run.result.artifact
    shutil.rmtree(lost / "artifacts" / name)
    with pytest.raises(ArtifactError, match=r"has lost its artifact .*: `nb.export\('runs/lost'\)` packs its weights"):
        nb.load("lost")
    packed = nb.export("lost")
    assert (
        packed.name == name
        and packed.path.read_bytes() == run.artifacts[0].path.parent.parent.joinpath(name, "artifact.nib").read_bytes()
    )
    nb.remove("lost")


def test_rubbish_is_no_artifact(folder: Path) -> None:
    Path("rubbish.nib").write_bytes(b"rubbish")
    for ask in (nb.load, nb.audit):
        with pytest.raises(ArtifactError, match=r"rubbish\.nib: it begins with b'rubb'"):
            ask("rubbish.nib")
    shutil.copy(nb.open_run("toy-1").artifacts[0].path, "alone.nib")
    with pytest.raises(ConfigError, match=r"alone.nib names no text to audit it on: pass data=DIR"):
        nb.audit("alone.nib")


def test_a_stream_of_another_model(folder: Path) -> None:
    stored = nb.compress("abc", "toy-1")
    assert nb.decompress(stored, "toy-2") == b"abc"  # stored plainly: it names no model
    from niblick.run.compressor import open_model
    from niblick.score.coded_file import model_stream

    stream, _ = model_stream(b"abc", *open_model("toy-1", Path("runs")))
    assert nb.decompress(stream, "toy-1") == b"abc"
    with pytest.raises(ArtifactError, match=r"was written with the model toy-1:.*: give model= that one"):
        nb.decompress(stream, "toy-2")


def test_a_cell_that_runs_twice(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"`nb.open_run\('runs/toy-1'\)` shows it, .* `nb.remove\('toy-1'\)`"):
        nb.train("hnet-small", "data/book", name="toy-1", overrides=TOY)
    shutil.copytree("runs/toy-1", "else where/toy-1")
    with pytest.raises(ConfigError, match=r"`nb.remove\('toy-1', runs='else where'\)`"):
        nb.train("hnet-small", "data/book", name="toy-1", overrides=TOY, runs="else where")
    assert nb.remove("toy-1", runs="else where")


def test_what_notebooks_show_is_escaped(folder: Path) -> None:
    odd = Path("<script> [/x]")
    for name in ("toy-1", "toy-2"):
        shutil.copytree(Path("runs", name), odd / name)
    log = odd / "a.log"
    log.write_text("step:1/1 val_loss:2.0 val_bpb:1.2 train_time:10ms step_avg:10.0ms\n")
    shown = [nb.open_run("toy-1", runs=odd), nb.compare(odd / "toy-1", odd / "toy-2"), nb.plot("toy-1", runs=odd)]
    shown += [nb.audit(log), nb.load(odd / "toy-1").chunks("<script>alert(1)</script> [/x]")]
    for each in shown:
        assert "<script" not in each._repr_html_() and repr(each)
    assert "&lt;script&gt;" in shown[0]._repr_html_() and "&lt;" in shown[-1]._repr_html_()


def test_from_a_thread(folder: Path) -> None:
    found: list[object] = []

    def work() -> None:
        try:
            run = nb.train("hnet-small", "data/book", name="threaded", overrides=TOY | {"schedule.steps": 1})
            found.extend([run.score, run.load().chunks("a text"), nb.compare("toy-1", run), nb.plot(run)])
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 4, found
    nb.remove("threaded")


def test_generation_checks_what_it_is_given(run: nb.Run) -> None:
    model: Any = run.load()
    for given, words in (
        ({"temperature": "hot"}, "temperature='hot' does not fit: give a number"),
        ({"max_bytes": 3.5}, "max_bytes=3.5 does not fit: give a whole number"),
        ({"seed": 1 << 99}, "must be a number of 64 bits"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.generate("a", **given)


def test_files_that_cannot_be_written_are_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "plots/curves.svg")

    monkeypatch.setattr("niblick.reports.plots.write_together", full)
    with pytest.raises(ArtifactError, match=r"plots/curves\.svg cannot be read or written: the disk is full"):
        nb.plot("toy-1").save("plots")


def test_short_texts(folder: Path) -> None:
    for text in ("abc", "\n\n", "one line of text"):
        Path("abc.txt").write_text(text)
        with pytest.raises(DataError, match="bytes, too short to be cut into a validation and a training split"):
            nb.prepare("abc.txt", "data/abc")
    assert not Path("data/abc").exists()
