"""Scoring divided over real processes gives what one process gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np, torch, torch.distributed as dist
from niblick.data.dataset import Split
from niblick.data.tokenizers import ByteTokenizer
from niblick.model.model_config import LevelConfig
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.model.model_config import StageConfig
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import score_split
from niblick.score.score_config import TTTConfig
from niblick.score.ttt import score_first

rank, ranks, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
if ranks > 1:
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=ranks)
torch.manual_seed(0)
level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=3.0)
model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1")))
for p in model.parameters():
    p.data += 0.2 * torch.randn_like(p)
texts = ["One document of several. " * n for n in (9, 1, 30, 4, 17)]
stream = np.concatenate([np.concatenate(([1], t)) for t in ByteTokenizer().encode_batch(texts)])
split = Split("val", [Path("memory")], [stream.astype(np.uint16)])
found = []
ttt = TTTConfig("sgd", lr=0.05, chunk_tokens=300, step_tokens=128, epochs=1)
for config in (
    ScoreConfig(32, 100),
    ScoreConfig(32, 100, "sliding", 8),
    ScoreConfig(32, 100, "document", 16),
    ScoreConfig(32, 100, ttt=ttt),
    ScoreConfig(32, 100, "sliding", 8, ttt=ttt),
):
    seen = []
    score = score_split(model, split, ByteTokenizer(), config, observe=lambda first, nats: seen.extend(nats))
    assert score_first(score.log) and bool(score.log) == bool(config.ttt.optimizer)
    assert abs(sum(seen) / score.nats - 1) < 1e-12
    found.append([score.nats, score.tokens, score.bytes, score.decisions, score.knife_edges])
sidecar = "not tried"
if ranks > 1:
    try:
        score_split(model, split, ByteTokenizer(), ScoreConfig(32, 100), sidecar=lambda *_: None)
    except Exception as error:
        sidecar = str(error)
print(json.dumps([found, sidecar]))
if ranks > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path: Path) -> None:
    """Two gloo processes against one, in float32: 1e-6; both processes report the same."""

    def scores(ranks: int) -> list[list[object]]:
        rendezvous = str(tmp_path / f"rendezvous-{ranks}")
        started = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(rank), str(ranks), rendezvous], stdout=subprocess.PIPE, text=True
            )
            for rank in range(ranks)
        ]
        outputs = [process.communicate(timeout=120)[0] for process in started]
        assert all(process.returncode == 0 for process in started)
        return [json.loads(output.splitlines()[-1]) for output in outputs]

    ((one, _),) = scores(1)
    (two, refused), (other, _) = scores(2)
    assert two == other
    assert "a sidecar reads the stream in order, and 2 processes do not" in refused  # type: ignore[operator]
    for single, divided in zip(one, two, strict=True):  # type: ignore[call-overload]
        assert divided[0] == pytest.approx(single[0], rel=1e-6)
        assert divided[1:] == single[1:]
