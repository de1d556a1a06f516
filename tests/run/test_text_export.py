"""Training text in the artifact of a run: packed, counted, shown, read before scoring; refused where it cannot be."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from niblick import cli
from niblick.artifact.container import read_artifact, write_artifact
from niblick.audit import auditor
from niblick.data.dataset import Dataset, Split
from niblick.data.prepare import prepare
from niblick.errors import ArtifactError, ConfigError
from niblick.facts.reading import plain, read
from niblick.facts.scores import ScoreRecord
from niblick.pack.export_config import ExportConfig, ResidualConfig
from niblick.pack.fit import Telling
from niblick.run import division, exports, packing, pipeline
from niblick.run.directory import Run
from niblick.run.exports import export_run
from niblick.score import mixing_kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not mixing_kernels.COMPILED, reason="numba is not installed (pip install 'niblick[mix]')"),
]
TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.dtype=float32"),
    *("schedule.steps=4", "schedule.max_seconds=null", "score.seq_len=64", "score.documents=1"),
]
MIXTURE = ["score.sidecar.name=mixture", "score.sidecar.mix=fast", "score.sidecar.memory=1"]


def niblick(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command line in this process; returns its exit code and what it said."""
    before, sys.argv = sys.argv, ["niblick", *map(str, arguments)]
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    prepare("pydocs", "byte260", folder / "data", max_docs=16, val_docs=2)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """A run whose artifact holds 9,000 bytes of its training text."""
    from niblick.config.run_config import override
    from niblick.recipes.presets import get_preset

    overrides = [*TOY, *MIXTURE, "export.text=9000", f"data.path={folder / 'data'}"]
    result = pipeline.run(override(get_preset("hnet-small"), overrides), folder / "runs", lambda event: None)
    assert result is not None
    return Run(Path(result.run))


def test_it_is_counted_shown_and_read(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run.result()
    assert result and result.artifact == "int8-published-text+zlib"
    path = run.artifact(result.artifact)
    artifact = read_artifact(path)
    assert artifact.text is not None and artifact.text.bytes == result.text_bytes == 9000
    assert result.packed_text == len(artifact.text.data) < 4500
    assert result.artifact_bytes == path.stat().st_size == artifact.bytes.file
    assert result.calibration_seconds  # training text was looked at: it counts as training
    code, out, _ = niblick(capsys, "show", path)
    assert code == 0 and f"text {len(artifact.text.data):,}" in out
    assert f"text: 9,000 bytes of {artifact.text.documents} training documents, packed by the mixture (fast, 1" in out
    code, out, _ = niblick(capsys, "show", path, "--json")
    assert json.loads(out)["text"]["bytes"] == 9000
    without = export_run(run, ["text=0"], lambda event: None)
    assert result.bpb < without.bpb - 0.1
    assert without.artifact_bytes < result.artifact_bytes - len(artifact.text.data)
    for sidecar, better in (("ngram", True), ("", False)):
        settings = [f"score.sidecar.name={sidecar}", "--data", folder / "data", "--json"]
        told = [
            json.loads(niblick(capsys, "eval", f"{run.path}:{name}", *settings)[1])["bpb"]
            for name in (result.artifact, without.artifact)
        ]
        assert (told[0] < told[1]) is better


def test_the_auditor_looks_at_it_and_proves_the_score(run: Run, folder: Path) -> None:
    result = run.result()
    assert result
    path, data = run.artifact(result.artifact), str(folder / "data")
    audited = auditor.open_audited(path, run, data, auditor.Options(prove=1), lambda sentence: None)
    beginning = Split("val", [], [audited.dataset.val.slice(0, 1500)])
    audited = replace(audited, dataset=replace(audited.dataset, val=beginning), record=None)
    [known], [proof] = auditor._text(audited), auditor._proof(audited)
    assert known.status == "pass" and f"9,000 bytes of text in {result.packed_text:,}" in known.detail
    assert "documents are training documents as they are, and no run of 200 bytes of validation text" in known.detail
    assert proof.status == "pass" and proof.facts["opening_bits"] == 0
    assert {check.status for check in auditor._scorer(audited)} == {"pass"}


def test_a_run_that_goes_on_packs_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run.result()
    assert result
    monkeypatch.setattr(pipeline, "official_score", lambda run, name: read(ScoreRecord, plain(result)))
    path = run.artifact(result.artifact)
    before = path.read_bytes()
    (run.path / "result.json").unlink()
    path.unlink()
    again = pipeline.resume(run, lambda event: None)
    assert again is not None and again.text_bytes == result.text_bytes
    assert path.read_bytes() == before


def test_text_that_does_not_decode_is_one_sentence(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = read_artifact(run.artifact(run.artifact_names()[-1]))
    if artifact.text is None:
        artifact = read_artifact(run.artifact(run.artifact_names()[0]))
    assert artifact.text is not None
    spoilt = replace(artifact.text, data=artifact.text.data[:-9] + b"123456789")
    write_artifact(tmp_path / "a.nib", artifact.config, artifact.encoded, artifact.codec, spoilt)
    for verb in ("eval", "audit"):
        code, _, err = niblick(capsys, verb, tmp_path / "a.nib", "--data", folder / "data")
        assert code == 2 and "the artifact's text cannot be read: the packed text decodes to something else" in err
        assert "Traceback" not in err


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run.artifact_names()
    result = run.result()
    assert result and result.code_bytes and result.packed_text
    room = 2000
    cap = result.code_bytes + result.artifact_bytes - result.packed_text + room
    monkeypatch.setattr(packing, "CAP_BYTES", cap)
    with pytest.raises(
        ConfigError, match=r"9,000 bytes of text pack into [\d,]+, and weights and code leave [\d,]+ of"
    ):
        export_run(run, ["text=9000"], lambda event: None, "large")
    monkeypatch.setattr(packing, "CAP_BYTES", cap - room - 9000)
    with pytest.raises(ConfigError, match=r"weights and code leave 0 of the cap of .*: there is no room for any"):
        export_run(run, ["text=9000"], lambda event: None, "large")
    assert run.artifact_names() == names


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["score.sidecar.name="], "for a sidecar to read before it scores, and there is none"),
        (["score.sidecar.reset=document"], "score.sidecar.reset=document forgets the text of export.text"),
        (["text=-1"], "export.text=-1 must be at least 0 bytes of text"),
    ],
)
def test_text_that_nobody_would_read_is_refused(
    run: Run, folder: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = niblick(capsys, "export", run.path, "text=100", *more, "--name", "other")
    assert code == 2 and words in err
    overrides = [m if "." in m else f"export.{m}" for m in ("export.text=100", *more)]
    runs = folder / "refused"
    code, _, err = niblick(
        capsys, "train", "hnet-small", "--data", folder / "data", "--runs", runs, *TOY, *MIXTURE, *overrides
    )
    assert code == 2 and words in err and not runs.exists()


def test_a_fit_takes_as_much_text_as_pays(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of four steps are worth nothing, so all of the text; and none where packing it left them no bytes."""
    monkeypatch.setattr(exports, "_scored", lambda run, name, facts, listen: facts)

    def fitted(room: int) -> Any:
        return exports.fit_run(run, lambda event: None, artifact=room, gptq=False, tokens=512, ladder=())

    found = fitted(24_000)
    artifact = read_artifact(run.artifact("fit-24000"))
    assert artifact.text is not None and artifact.text.bytes == 9000
    assert found.result.artifact_bytes == artifact.bytes.file <= 24_000
    facts = packing.exported(run, "fit-24000")
    assert facts and facts.export and facts.export["scheme"].startswith("ecsq") and facts.export["codec"] == "range"
    residual = ResidualConfig(**facts.export["residual"])  # rounding decides whether some bytes are left for it
    own = replace(run.config(), export=ExportConfig(**{**facts.export, "residual": residual, "rules": ()}))
    assert facts.code_bytes == packing.closure_bytes(own, None) > packing.closure_bytes(run.config(), None)
    tried = found.details.divisions
    assert [t["share"] for t in sorted(tried, key=lambda t: -t["share"])] == [1.0, 0.5, 0.25, 0.0]
    assert [t["bpb"] for t in tried] == sorted(t["bpb"] for t in tried) and tried[0]["share"] == 1.0
    assert all(t["packed_text"] + t["weights"] <= 24_000 for t in tried)
    heard: list[str] = []
    with pytest.raises(ArtifactError, match="a cap of 1,000 bytes is too small: the coarsest weights"):
        exports.fit_run(run, lambda event: None, artifact=1000, gptq=False, telling=Telling(heard.append))
    assert heard == []  # no text was packed for weights that fit nowhere


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["codec=zlib"], "codec is what a fit settles by itself: use --codec"),
        (["scheme=int4"], "scheme is what a fit settles by itself: leave it out, or use `niblick export`"),
        (["export.residual.bytes=9"], "residual.bytes is what a fit settles by itself"),
        (["score.sidecar.reset=document"], "forgets the text of export.text"),
    ],
)
def test_what_a_fit_does_not_do_is_refused_at_once(run: Run, given: list[str], words: str) -> None:
    names, heard = run.artifact_names(), list[str]()
    with pytest.raises(ConfigError, match=words):
        exports.fit_run(run, lambda event: None, given, telling=Telling(heard.append))
    assert (run.artifact_names(), heard) == (names, [])


def test_shares_of_one_byte_are_tried_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_scored", lambda run, name, facts, listen: facts)
    found = exports.fit_run(run, lambda event: None, ["text=1"], artifact=24_001, gptq=False, tokens=512, ladder=())
    assert sorted(tried["text_bytes"] for tried in found.details.divisions) == [0, 1]


def test_what_is_held_back_of_a_split_is_not_in_the_rest(folder: Path) -> None:
    dataset = Dataset.open(folder / "data")
    held, rest = division.hold_back(dataset.train, dataset.tokenizer.bos_id)
    both = [bytes(dataset.tokenizer.decode(part.slice(0, part.tokens))) for part in (held, rest)]
    assert 0 < held.tokens < rest.tokens and held.tokens + rest.tokens == dataset.train.tokens
    assert both[0][:200] not in both[1]
    one = Split("train", [], [dataset.train.slice(0, 900)])  # a single document
    held, rest = division.hold_back(one, dataset.tokenizer.bos_id)
    assert (held.tokens, rest.tokens) == (0, 900)
