"""More artifacts of a run: exports, fits, sensitivities, sizes; on one really trained small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import forked
import pytest
import torch

from niblick.artifact.container import read_artifact
from niblick.challenge.rules import CAP_BYTES
from niblick.config.run_config import RunConfig
from niblick.errors import ConfigError
from niblick.pack.export_config import ExportConfig
from niblick.pack.quantize import pack
from niblick.recipes.presets import get_preset
from niblick.run import packing
from niblick.run.exports import fill_cap, predict_size, with_export

SMALL = [
    *("model.width=64", "model.heads=2", "model.kv_heads=1", "train.seq_len=128", "train.batch_tokens=2048"),
    *("train.micro_batch_tokens=2048", "train.warmup_steps=0", "train.val_every=0", "schedule.steps=150"),
    *("schedule.max_seconds=null", "score.seq_len=128", "schedule.warmdown_share=0.5", "train.dtype=float32"),
]


def niblick(*arguments: Any, fails: bool = False) -> Any:
    done = forked.run(["-m", "niblick", *arguments])
    if fails:
        assert done.returncode == 2, done.stderr
        *told, line = done.stderr.strip().splitlines()
        assert "Traceback" not in done.stderr and not any(said.startswith("niblick: ") for said in told), told
        return line
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 steps on the documentation of Python."""
    folder = tmp_path_factory.mktemp("exports")
    data = ["--source", "pydocs", "--max-docs", "60", "--val-docs", "6", "--out", folder / "data", "--json"]
    niblick("data", "prepare", *data)
    trained = niblick("train", "hnet-small", "--data", folder / "data", "--runs", folder, *SMALL, "--json")
    return Path(trained["run"])


@pytest.mark.slow
def test_an_export_is_scored_from_its_file(run: Path) -> None:
    before = (run / "result.json").read_bytes()
    plain = niblick("export", run, "scheme=int4", "codec=range", "--json")
    assert plain["artifact"] == "int4+range"
    path = run / "artifacts" / "int4+range" / "artifact.nib"
    assert plain["artifact_bytes"] == path.stat().st_size
    assert [json.loads(line)["bpb"] for line in (path.parent / "scores.jsonl").read_text().splitlines()] == [
        plain["bpb"]
    ]
    options = ["gptq=float", "permute=true", "residual.bytes=2000", "calibration_tokens=8192"]
    better = niblick("export", run, "scheme=int4", "codec=range", *options, "--name", "better", "--json")
    assert better["artifact"] == "better" and better["calibration_tokens"] >= 8192
    tensors = read_artifact(run / "artifacts" / "better" / "artifact.nib").encoded
    assert any("left" in tensor.parts for tensor in tensors.values())
    assert better["bpb"] < plain["bpb"]
    assert (run / "result.json").read_bytes() == before


@pytest.mark.slow
def test_a_fit_fills_its_cap_and_beats_what_it_replaces(run: Path) -> None:
    for scheme, codec in (("int6", "zlib"), ("int4", "zstd")):
        replaced = niblick("export", run, f"scheme={scheme}", f"codec={codec}", "--json")
        cap = replaced["artifact_bytes"]
        fitted = niblick("fit", run, "--artifact-bytes", cap, "--tokens", 8_192, "--json")
        assert 0.995 * cap <= fitted["artifact_bytes"] <= cap
        assert fitted["bpb"] < replaced["bpb"]
        assert json.loads((run / "artifacts" / fitted["artifact"] / "fit.json").read_text())["frontier"]


@pytest.mark.slow
def test_sensitivities(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = niblick("sensitivity", run, "scheme=int3", "--tokens", 4096, "--out", out, "--json")
    assert found["packed_bpb"] > found["float_bpb"]
    assert [r["per_kb"] for r in found["tensors"]] == sorted((r["per_kb"] for r in found["tensors"]), reverse=True)
    assert {r["name"] for r in found["tensors"]} >= {"embed.weight", "body.main.blocks.0.mlp.up.weight"}
    assert json.loads((out / "sensitivity.json").read_text()) == found
    assert (out / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["niblick-byte", "dense-sp1024", "dense-sp8192"])
def test_recipes_of_full_size_keep_to_the_cap_and_nearly_fill_it(name: str) -> None:
    size = predict_size(get_preset(name))
    assert 0.85 * CAP_BYTES < size.low + size.code < size.high + size.code <= CAP_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("export", [["scheme=int6", "codec=range"], ["scheme=ecsq4", "codec=range"], ["codec=zlib"]])
def test_the_predicted_size_holds(run: Path, export: list[str]) -> None:
    real = niblick("export", run, *export, "--json")
    size = niblick("size", "hnet-small", *SMALL, *export, "--json")
    assert size["low"] <= real["artifact_bytes"] <= size["high"]
    assert size["code"] == real["code_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "RUN", "--artifact-bytes", 900], "a cap of 900 bytes is too small: the coarsest weights"),
        (["fit", "RUN", "--cap", 1000], "the code alone takes"),
        (["fit", "RUN", "--cap", 1000, "--artifact-bytes", 10], "give one of them"),
        (["fit", "RUN", "--artifact-bytes", 90_000, "--codec", "rang"], "no codec 'rang' here (nearest: range"),
        (["export", "RUN", "scheme=int9"], "no quantization scheme 'int9'"),
        (["export", "RUN", "codec=gzip"], "no codec 'gzip'"),
        (["export", "RUN", 'rules=["embd=int8"]'], "no tensor is named like 'embd'"),
        (["export", "RUN", "schme=int6"], "unknown key 'export.schme' (nearest: export.scheme"),
        (["export", "RUN", "--name", "../x"], "'../x' is no name of an artifact"),
        (["export", "NOWHERE"], "there is no run"),
        (["export", "RUN", "scheme=int6", "--name", "int8-published+zlib"], "is the official artifact of"),
        (["fit", "RUN", "--artifact-bytes", 20_000, "--tokens", 0], "nothing can be measured on 0 tokens"),
        (["size", "hnet-small", "scheme=int60"], "no quantization scheme"),
    ],
)
def test_mistakes(run: Path, arguments: list[Any], message: str) -> None:
    there = sorted(run.glob("artifacts/*"))
    assert message in niblick(*(run if a == "RUN" else a for a in arguments), fails=True)
    assert sorted(run.glob("artifacts/*")) == there


@pytest.mark.slow
def test_a_truncated_artifact_is_refused(run: Path, tmp_path: Path) -> None:
    whole = (run / "artifacts" / "int8-published+zlib" / "artifact.nib").read_bytes()
    (tmp_path / "short.nib").write_bytes(whole[: len(whole) // 2])
    assert "where its first lines declare" in niblick("eval", tmp_path / "short.nib", "--data", tmp_path, fails=True)


def test_filling_a_cap_grows_width_or_depth() -> None:
    config = with_export(get_preset("hnet-small"), ["scheme=int6", "codec=range"])
    now = predict_size(config)
    assert 0.5 * now.parameters < now.low < now.high < now.parameters
    proposals = fill_cap(config, now.code + 2 * now.high)
    assert [p.grow for p in proposals] == ["width", "depth"]
    for proposal in proposals:
        assert now.high < proposal.high + now.code <= now.code + 2 * now.high
    assert fill_cap(config, 1000) == []
    with pytest.raises(ConfigError, match="unknown key"):
        with_export(config, ["colour=red"])


def test_sizes_where_the_code_cannot_be_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_script(config: RunConfig, recipe: Path | None = None) -> NoReturn:
        raise ConfigError("the recipe\nreads a file")

    monkeypatch.setattr(packing, "make_script", make_script)
    config = with_export(get_preset("hnet-small"), ["scheme=int6", "codec=range"])
    size = predict_size(config)
    assert size.code is None and 0 < size.low < size.high
    with pytest.raises(ConfigError, match=r"the recipe\nreads a file"):
        fill_cap(config, CAP_BYTES)


def test_a_codec_that_takes_more_bytes_is_named() -> None:
    """The range coder sees weights one by one, at most beside the row above; rows in turns are what zlib is for."""
    rows = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    repeated = pack({"w": rows.repeat(32, 1)}, ExportConfig("int8"))
    assert "more than codec=zlib would" in packing.smaller_by_zlib(repeated, "range")
    assert packing.smaller_by_zlib(repeated, "zlib") == ""
    matrix = {"w": torch.randn(512, 512, generator=torch.Generator().manual_seed(0))}
    assert packing.smaller_by_zlib(pack(matrix, ExportConfig("int8")), "range") == ""


def test_predictions_do_not_depend_on_the_random_state() -> None:
    config = get_preset("hnet-small")
    torch.manual_seed(5)
    first = predict_size(config)
    torch.manual_seed(6)
    assert predict_size(config) == first


@pytest.mark.slow
def test_two_processes_give_one_score(run: Path) -> None:
    settings = ["score.scorer=sliding", "score.stride=32", "--json"]
    alone, shared = niblick("eval", run, *settings), niblick("eval", run, *settings, "--devices", 2)
    assert shared["bpb"] == pytest.approx(alone["bpb"], abs=1e-6)
    assert shared["scorer"] == alone["scorer"]
    scores = run / "artifacts" / "int8-published+zlib" / "scores.jsonl"
    assert [json.loads(line)["bpb"] for line in scores.read_text().splitlines()[-2:]] == [alone["bpb"], shared["bpb"]]
    assert "made by one process" in niblick("eval", run, "--breakdown", "--devices", 2, fails=True)
