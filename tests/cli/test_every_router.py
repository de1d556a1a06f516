"""Routers through the verbs: trained, gone on with, generated from, audited and submitted, as `cosine` is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Niblick

from niblick.data.prepare import prepare

TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "train.device=cpu", "train.dtype=float32"),
    *("train.compile=never", "train.seq_len=64", "train.batch_tokens=256", "train.micro_batch_tokens=256"),
    *("train.warmup_steps=0", "train.val_every=0", "train.log_every=2", "train.checkpoint_every=2"),
    *("schedule.steps=4", "schedule.max_seconds=null", "score.seq_len=64", "score.documents=1"),
]
PAIRS = {
    "score-function": "coding-rate",
    "gumbel": "delayed",
    "sombrero": "fixed",
}
"""An outer router and an inner one: half as many runs. The other routers go through these verbs in other tests."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routers") / "data"
    prepare("pydocs", "byte260", folder, max_docs=12, val_docs=2)
    return folder


def settings(router: str) -> list[object]:
    if router == "words":
        return ["words-small", *TOY, "model.main.layout=T1"]
    around = {"encoder": {"layout": "c1"}, "decoder": {"layout": "c1"}, "target_length": 3.0}
    levels = [around | {"router": name} for name in (router, PAIRS[router])]
    return ["hnet-small", *TOY, "model.main.layout=T1", f"model.levels={json.dumps(levels)}"]


@pytest.mark.slow
@pytest.mark.usefixtures("score_here", "one_script")
@pytest.mark.parametrize("router", [*PAIRS, "words"])
def test_from_training_to_a_submission(router: str, data: Path, tmp_path: Path, niblick: Niblick) -> None:
    first = niblick.json("train", *settings(router), "--data", data, "--runs", tmp_path)
    run = Path(first["run"])
    (run / "result.json").unlink()  # as if it had been killed after its first checkpoint
    *_, last = sorted((run / "checkpoints").iterdir())
    last.unlink()
    assert [*(run / "checkpoints").iterdir()]
    resumed = niblick.json("train", "--resume", run)
    assert (resumed["step"], resumed["bpb"]) == (4, first["bpb"])
    written = niblick.json("generate", run, "--prompt", "The ", "--max-bytes", 12)
    assert written["text"]
    checks = {check["name"]: check["status"] for check in niblick.json("audit", run, "--data", data)["checks"]}
    assert "fail" not in checks.values() and checks["causality"] == "pass"
    niblick.json("submit", run, "--out", tmp_path / "folder", "--force")
    assert (tmp_path / "folder" / "train_gpt.py").stat().st_size < 70_000
