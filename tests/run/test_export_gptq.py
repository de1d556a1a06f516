"""`export.gptq` from the command line to the score: what is recorded, and what is refused before anything is done."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import pytest

from niblick.config.run_config import override
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.recipes.presets import get_preset

TOY = [
    *("model.width=64", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.device=cpu"),
    *("schedule.steps=4", "schedule.max_seconds=null", "score.seq_len=64", "export.calibration_tokens=512"),
]


@pytest.mark.slow
@pytest.mark.parametrize("gptq", ["float", "quantized"])
def test_train_to_score(gptq: str, tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.mkdir()
    for i in range(12):
        (source / f"{i}.txt").write_text(f"Document {i} of twelve, each of which says much the same. " * 20)
    prepare(str(source), "byte260", tmp_path / "data", val_docs=2)
    wanted = ["export.scheme=int6", f"export.gptq={gptq}", "export.codec=zstd"]
    command = ["-m", "niblick", "train", "hnet-small", "--data", str(tmp_path / "data")]
    command += ["--runs", str(tmp_path / "runs"), *TOY, *wanted, "--json"]
    result = json.loads(forked.run(command).stdout)
    name = {"float": "int6-gptq+zstd", "quantized": "int6-gptq.quantized+zstd"}[gptq]
    assert result["artifact"] == name and result["bpb"] > 0
    run = tmp_path / "runs" / "hnet-small-1"
    assert (run / "artifacts" / name / "artifact.nib").stat().st_size == result["artifact_bytes"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    export = next(event for event in events if event["event"] == "export")
    assert export["calibration_seconds"] == result["calibration_seconds"] > 0
    assert export["calibration_tokens"] == 512
    # The train clock of the challenge: calibration reads training text, so its seconds are training.
    trained = result["train_seconds"] + export["calibration_seconds"]
    assert result["legality"]["train_seconds"] == pytest.approx(trained, abs=1e-9)
    assert export["gptq_notes"] == {}


def test_refused() -> None:
    with pytest.raises(ConfigError, match="unknown export\\.gptq='on'"):
        override(get_preset("hnet-small"), ["export.scheme=int6", "export.gptq=on"])
    with pytest.raises(ConfigError, match="has none: choose int2 to int8"):
        override(get_preset("hnet-small"), ["export.gptq=float"])
