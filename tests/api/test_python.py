"""`import niblick as nb`: the names of the command line, as functions that say what they take, give and refuse."""

from __future__ import annotations

import inspect
import json
import os
import pydoc
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from notebook import TEXT, TOY
from rich.text import Text

import niblick as nb
from niblick.api.wording import in_python
from niblick.console import RunConsole
from niblick.errors import ConfigError, DataError

FUNCTIONS = (
    "audit",
    "chunks",
    "compare",
    "compress",
    "decompress",
    "export",
    "fit",
    "load",
    "open_run",
    "pack",
    "plot",
)
FUNCTIONS += ("prepare", "presets", "push", "remove", "resume", "runs", "score", "show", "sweep", "train")


def test_names_are_listed_before_torch_is_there() -> None:
    code = "import sys, niblick as nb\nprint(*dir(nb))\nassert not {'torch', 'rich', 'pydantic'} & set(sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(FUNCTIONS) <= set(listed)
    assert all(hasattr(nb, name) for name in listed)
    assert not hasattr(nb, "trian")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_document_themselves(name: str) -> None:
    function = getattr(nb, name)
    signature = inspect.signature(function)
    assert signature.return_annotation not in ("Any", inspect.Signature.empty)
    assert len(inspect.getdoc(function) or "") > 60
    shown = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert all(parameter in shown for parameter in signature.parameters)


def test_packages_that_are_functions_stay_packages() -> None:
    import niblick.train.loop

    assert isinstance(nb.train, types.ModuleType) and callable(nb.train)
    assert nb.train.loop is niblick.train.loop


def test_data(folder: Path) -> None:
    data = nb.prepare("book.txt", "data/book")  # again: it stays as it is
    assert "train" in repr(data) and "byte260" in repr(data)
    assert data.dataset.val.tokens > 0
    assert os.fspath(data) == str(Path("data/book"))


def test_a_run(run: nb.Run) -> None:
    assert run.id == "toy-1" and run.status == "done" and run.config.seed == 1
    assert run.score == run.result.bpb == run.artifacts[0].score
    curve = run.curve
    assert curve["step"][-1] == 8 and {len(column) for column in curve.values()} == {len(curve["step"])}
    assert curve["validation_bpb"][-1] is not None and curve["seconds"][-1] > 0
    frame = run.frame
    assert list(frame.columns) == list(curve) and len(frame) == len(curve["step"])
    assert f"{run.score:.4f}" in repr(run)
    page = run._repr_html_()
    assert f"{run.score:.4f}" in page and "<svg" in page
    assert "<th>validation_bpb</th>" in curve._repr_html_()


def test_runs_are_listed_and_moved_away(folder: Path) -> None:
    nb.train("hnet-small", "data/book", name="away", overrides=TOY | {"schedule.steps": 1})
    assert [run.id for run in nb.runs()] == ["away", "toy-2", "toy-1"]
    [where] = nb.remove("away")
    assert where.is_dir() and [run.id for run in nb.runs()] == ["toy-2", "toy-1"]
    with pytest.raises(ConfigError, match=r"`nb.runs\(\)` lists them"):
        nb.remove("latest")


def test_a_model(run: nb.Run) -> None:
    model = nb.load(run)
    for same in (nb.load("toy-1"), nb.load(run.artifacts[0]), nb.load(run.artifacts[0].path), run.load()):
        assert torch.equal(same.logits("abc"), model.logits("abc"))
    assert "byte260" in repr(model) and "artifact.nib" in repr(model)
    text = "Grüße, " * 30  # longer than the context
    logits, bits = model.logits(text), model.bits(text)
    assert logits.shape == (len(text.encode()), 260) and bits.shape == (len(text.encode()),)
    ids = torch.tensor([byte + 4 for byte in text.encode()])
    expected = -logits.double().log_softmax(-1)[torch.arange(len(ids)), ids].numpy() / np.log(2)
    assert np.allclose(bits, expected, atol=1e-4)
    assert model.bits_per_byte(text) == pytest.approx(bits.mean()) == model.bits_per_byte(text.encode())
    warm = model.generate("Para", temperature=1.0, max_bytes=40, seed=1)
    assert warm == model.generate("Para", temperature=1.0, max_bytes=40, seed=1) != model.generate("Para", seed=2)


def test_chunks_show_themselves(run: nb.Run) -> None:
    cut = run.load().chunks("a <b> c")
    assert "".join(chunk.text for chunk in cut) == "a <b> c"
    assert str(cut).startswith("[a")
    assert "title=" in cut._repr_html_() and "<b>" not in cut._repr_html_()


@pytest.mark.parametrize("method", ["bits", "bits_per_byte", "logits", "chunks"])
def test_models_refuse_what_is_no_text(run: nb.Run, method: str) -> None:
    ask = getattr(run.load(), method)
    for empty in ("", b""):
        with pytest.raises(DataError, match="the text is empty"):
            ask(empty)
    for other in (None, 3, Path("book.txt"), ["a"]):
        with pytest.raises(ConfigError, match="is no text: give str or bytes"):
            ask(other)


def test_compare_two_seeds(folder: Path) -> None:
    found = nb.compare("toy-1", nb.open_run("toy-2"))
    assert [group.label for group in found.facts.groups] == ["A", "B"]
    assert "seeds" in repr(found) and "<pre" in found._repr_html_() and "toy-1" in found._repr_html_()


def test_pictures(folder: Path, run: nb.Run) -> None:
    shown = nb.plot("toy-1", "toy-2", over="step", compressors=True)
    assert list(shown) == ["curves", "boundaries", "bytes", "cap"]
    assert shown._repr_html_().count("<svg") == 4
    parts = {trace["name"]: sum(trace["x"]) for trace in shown["bytes"]["data"]}
    assert {"code", "header", "embed", "main", "encoder 0", "router 0"} <= set(parts)
    assert sum(parts.values()) == pytest.approx(2 * run.result.total_bytes, abs=100)
    assert any("xz" in note["text"] for note in shown["cap"]["layout"]["annotations"])
    assert [path.name for path in shown.save("pictures", "png")] == [f"{name}.png" for name in shown]
    assert b"<script" in nb.plot(run).save("pictures", "html")[0].read_bytes()
    for call, sentence in (
        (lambda: nb.plot("toy-9"), "no run or sweep 'toy-9'"),
        (lambda: nb.plot("toy-1", over="miles"), "choose step, time or bytes"),
        (lambda: shown.save("pictures", "gif"), "choose png, svg, html"),
        (lambda: shown.save("book.txt"), r"out='book.txt' does not fit: it is a file: give a folder"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            call()


def test_rework_and_audit(run: nb.Run) -> None:
    packed = nb.export(run, scheme="int6", codec="zstd")
    assert packed.name == "int6+zstd" and packed.score > 0 and f"{packed.bytes:,}" in repr(packed)
    fitted = nb.fit(run, artifact_bytes=packed.bytes, tokens=1024, gptq=False)
    assert fitted.bytes <= packed.bytes
    stream = nb.compress(TEXT[:200], packed)
    assert nb.decompress(stream, packed) == TEXT[:200].encode()


def test_audit_of_a_log(folder: Path) -> None:
    Path("a.log").write_text("step:1/1 val_loss:2.0 val_bpb:1.2 train_time:10ms step_avg:10.0ms\n")
    found = nb.audit("a.log")
    assert found.checks and found.honest is not None and "a.log" in repr(found)
    assert "a.log" in found._repr_html_()


REFUSED: list[tuple[Any, str]] = [
    (lambda: nb.train("hnet-smal", "data/book"), r"nearest: hnet-small.*`nb.presets\(\)` lists them all"),
    (lambda: nb.train("hnet-small", "data/book", model__widht=3), r"unknown key 'model.widht' \(nearest: model.width"),
    (lambda: nb.train("hnet-small"), r"pass data=DIR; `nb.prepare\('pydocs', DIR, tokenizer='byte260'\)`"),
    (lambda: nb.train("hnet-small", "data/book", name="toy-1", overrides=TOY), r"a run already.*`nb.remove\('toy-1'"),
    (lambda: nb.train("hnet-small", "data/book", seed=object()), "is no value of a config"),
    (lambda: nb.open_run("toy-3"), r"no run 'toy-3' in runs \(nearest: toy-"),
    (lambda: nb.load("toy-1:int7"), r"no artifact 'int7' \(there: "),
    (lambda: nb.prepare("nothing.txt", "data/nothing"), "nothing.txt"),
    (lambda: nb.compare("toy-1"), r"nothing to compare one run with: name at least two, as in `nb.compare\(A, B\)`"),
    (lambda: nb.sweep("hnet-small", {"model.width": [16]}, "data/book"), "the sweep has no name: give name="),
    (lambda: nb.export("toy-1", scheme="int99"), "int99"),
    (lambda: nb.resume("toy-1"), r"finished already: `nb.open_run\('[^']*toy-1'\)` shows its result"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refusals_name_the_call_that_helps(folder: Path, number: int) -> None:
    call, sentence = REFUSED[number]
    with pytest.raises(nb.NiblickError, match=sentence) as caught:
        call()
    assert "--" not in str(caught.value) and "\n" not in str(caught.value)


def test_text_too_short_to_train_on(folder: Path) -> None:
    """`prepare` refuses what says nothing about any model, `train` what is less than a window of this one."""
    Path("short.txt").write_text("one line of text, and no more")
    with pytest.raises(DataError, match=r"short.txt is one text of 29 bytes, too short to be cut .*val_docs=1"):
        nb.prepare("short.txt", "data/short")
    assert not Path("data/short").exists()
    data = nb.prepare(["one line", "another"], "data/short")
    with pytest.raises(DataError, match=r"the train split has \d+ tokens, but one window needs 257.*prepare more text"):
        nb.train("hnet-small", data)


def test_a_run_without_a_score_says_why(folder: Path) -> None:
    half = folder / "runs" / "half"
    half.mkdir()
    (half / "config.json").write_text((folder / "runs/toy-1/config.json").read_text())
    (half / "events.jsonl").write_text('{"event": "failure", "message": "no room", "schema": 1, "time": 1.0}\n')
    try:
        with pytest.raises(ConfigError, match=r"has no score, it is failed \(no room\): `nb.resume\('"):
            _ = nb.open_run("half").score
        assert "no room" in repr(nb.open_run("half")) and "no room" in nb.open_run("half")._repr_html_()
        with pytest.raises(ConfigError):
            nb.export("half")
    finally:
        nb.remove("half")


def test_sentences_in_python() -> None:
    said = in_python("give --val-share: `niblick train --resume runs/a`, `niblick rm a` or `niblick eval b --x`")
    assert said == "give val_share=: `nb.resume('runs/a')`, `nb.remove('a')` or `niblick eval b --x`"


def test_a_stopped_run_goes_on_by_a_call() -> None:
    said = in_python("stopped by SIGINT after step 3; resume with: niblick train --resume runs/a")
    assert said == "stopped by SIGINT after step 3; resume with: `nb.resume('runs/a')`"


def test_sweeps(folder: Path) -> None:
    """Processes of their own, started from a process whose main module is no file."""
    settings = {key.replace(".", "__"): json.loads(v) if v[0].isdigit() else v for key, v in TOY.items()}
    settings["schedule__steps"] = 1
    found = nb.sweep("hnet-small", {"model.levels.0.target_length": [4]}, "data/book", name="lengths", **settings)
    assert [run.id for run in found.runs] == ["lengths/target_length=4-s1337"]
    assert "target_length=4" in repr(found) and found.runs[0].score > 0


class _Output:
    """What `IPython.display.display(…, display_id=True)` returns."""

    shown: ClassVar[list[str]] = []

    def update(self, what: Text) -> None:
        self.shown.append(what.plain)


def test_progress_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("IPython.display")
    module.display = lambda *what, **how: _Output()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    console = RunConsole()
    monkeypatch.setattr(console.console, "is_jupyter", True)
    _Output.shown.clear()
    with console:
        console.progress("scoring", 0.5, 2.0, 3.0)
        console.progress("scoring", 0.6, 2.0, 3.0)  # too fast to be shown
        console.say("a line that stays")
    assert len(_Output.shown) == 2
    assert "50%" in _Output.shown[0] and _Output.shown[-1] == ""


@pytest.mark.parametrize("own", ["", "7"])
def test_threads_wait_shortly_whoever_imports_niblick(own: str) -> None:
    """In a notebook as on the command line: a busy loop beside other work costs ten times the work itself."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": own} if own else {}
    program = "import sys, os, niblick; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [own or "20000", "False"]
