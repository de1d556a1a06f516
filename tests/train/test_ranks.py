"""Several real processes over gloo train what one process trains; signals and deaths reach all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from told import told

from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.run.directory import Run
from niblick.train.checkpoint import list_checkpoints, read_tensors
from niblick.train.distributed import SINGLE, Ranks
from niblick.train.settings import TrainConfig
from niblick.train.signals import StopSignals

# Trains on one rank or several; every rank leaves its weights, rank 0 the events.
WORKER = """
import json, sys
from dataclasses import replace
from pathlib import Path

import numpy as np, torch
from niblick.data.dataset import Split
from niblick.data.loader import Batches
from niblick.model.model_config import LevelConfig
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.model.model_config import StageConfig
from niblick.score.scorers import Score
from niblick.train.checkpoint import save_tensors
from niblick.train.distributed import joined
from niblick.train.settings import OptimConfig
from niblick.train.schedule import ScheduleConfig
from niblick.train.settings import TrainConfig
from niblick.train.loop import Aids, Hooks, Keeping, Recipe, train
from told import noted

torch.set_num_threads(1)
folder, kind, passes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.manual_seed(5)
if kind == "hnet":
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=4.0, ratio_weight=0.05)
elif kind == "drawn":
    level = LevelConfig(StageConfig("c1"), StageConfig("c1"), router="score-function", target_length=4.0,
                        dechunk="plain", confidence=False)
else:  # its threshold gets no gradient at all
    level = LevelConfig(StageConfig("c1"), StageConfig("c1"), router="cosine-threshold", confidence=False,
                        dechunk="decay", ratio="square", ratio_weight=1.0)
model = LM(ModelConfig(width=32, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T2")))
text = ("It is a truth universally acknowledged, that a single man in possession of a good fortune, " * 60).encode()
tokens = np.frombuffer(text, np.uint8).astype(np.uint16) + 4
with joined() as ranks:
    micro = 8 * 32 // ranks.size // passes
    batches = Batches(Split("train", [Path("memory")], [tokens]), vocab_size=260, seq_len=32, rows=micro // 32,
                      order="shuffle", seed=3, rank=ranks.rank, ranks=ranks.size)
    events = []
    train(
        model, batches,
        Recipe(
            TrainConfig(seq_len=32, batch_tokens=8 * 32, micro_batch_tokens=micro, warmup_steps=1, val_every=0,
                        dtype="float32", device="cpu", average="swa"),
            ScheduleConfig(steps=20, warmdown_steps=10),
            OptimConfig(muon_momentum_steps=10, grad_clip=1.0),
        ),
        Hooks(noted(events), lambda model: Score(1.0, 1, 1, 0.0)),
        ranks=ranks,
        keeping=Keeping(folder / "checkpoints"),
    )
    save_tensors(folder / f"rank{ranks.rank}.safetensors", dict(model.state_dict()), {})
    if ranks.main:
        steps = [[e["total"], e["grad_norm"]] for e in events if e["event"] == "step"]
        (folder / "steps.json").write_text(json.dumps(steps))
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def trained(folder: Path, ranks: int, kind: str, passes: int) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
    """The weights of every rank, and loss and gradient norm of every step."""
    folder.mkdir()
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *torchrun, str(worker), str(folder), kind, str(passes)]
    subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=300)
    weights = [read_tensors(folder / f"rank{r}.safetensors")[0] for r in range(ranks)]
    return weights, torch.tensor(json.loads((folder / "steps.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "kind", "passes"),
    [(2, "hnet", 1), (4, "hnet", 1), (2, "tinyhnet", 1), (2, "hnet", 2), (2, "drawn", 1)],
)
def test_ranks_train_what_one_process_trains(tmp_path: Path, ranks: int, kind: str, passes: int) -> None:
    """20 steps of the same global batch: losses and weights within 1e-4, on all ranks the same bits.

    With one pass a rank, gradients are added in the order of one process with as many passes. With more they are not,
    and Muon in bfloat16 makes of the last bit what only the first steps do not show.
    """
    [alone], expected = trained(tmp_path / "one", 1, kind, ranks * passes)
    shared, steps = trained(tmp_path / "many", ranks, kind, passes)
    assert len(steps) == 20
    assert steps[-1, 0] < 0.8 * steps[0, 0]
    compared = 20 if passes == 1 else 3
    assert (steps - expected)[:compared].abs().max() <= 1e-4
    for name, tensor in alone.items():
        for other in shared:
            assert torch.equal(other[name], shared[0][name]), name
        if passes == 1 and not name.endswith("edge"):  # which moves once a step, and in one process once a pass
            assert (shared[0][name] - tensor).abs().max() <= 1e-4, name


TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.seq_len=32", "train.batch_tokens=128", "train.micro_batch_tokens=64", "score.seq_len=64"),
    *("schedule.max_seconds=null", "train.log_every=1"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks") / "pydocs"
    prepare("pydocs", "byte260", folder, max_docs=24, val_docs=2)
    return folder


def started(data: Path, runs: Path, *arguments: str, torchrun: bool = False) -> subprocess.Popen[str]:
    """`niblick train --devices 2`, or the same by torchrun itself."""
    engine = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if torchrun else []
    devices = [] if torchrun else ["--devices", "2"]
    what = [] if "--resume" in arguments else ["hnet-small", "--data", str(data), *TOY]
    command = [sys.executable, *engine, "-m", "niblick", "train", *what, *devices, "--runs", str(runs), *arguments]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 180
    while not ((run / "events.jsonl").is_file() and f'"step": {step},' in (run / "events.jsonl").read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the ranks, rank 0 first (Linux)."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    found = {}
    for pid in pids:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found |= {int(v[5:]): pid for v in variables if v.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def said(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("niblick: ")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the ranks through /proc")
def test_a_signal_to_one_rank_stops_all_and_they_go_on(data: Path, tmp_path: Path) -> None:
    """SIGTERM at rank 1: one checkpoint, one message; resuming on two ranks, then the score of the whole pipeline."""
    run = Run(tmp_path / "hnet-small-1")
    process = started(data, tmp_path, "schedule.steps=100000")
    wait_for_step(process, run.path, 5)
    os.kill(ranks_of(process)[1], signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert out == ""
    [message] = said(err)
    assert "stopped by SIGTERM after step" in message
    [checkpoint] = list_checkpoints(run.checkpoints)
    step = int(checkpoint.stem.split("_")[1])
    config = json.loads((run.path / "config.json").read_text())
    config["schedule"]["steps"], config["train"]["val_every"] = step + 4, step + 2
    (run.path / "config.json").write_text(json.dumps(config))
    process = started(data, tmp_path, "--resume", str(run.path))
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert out.count("BPB ") == 1
    result = run.result()
    assert result and result.step == step + 4
    events = list(told(run))
    assert [e["step"] for e in events if e["event"] == "step"][-5:] == list(range(step, step + 5))
    assert next(e for e in events if e["event"] == "start")["ranks"] == 2
    assert "world_size:2 grad_accum_steps:1" in (run.path / "train.log").read_text()
    # The validation that two ranks shared lies beside the one that rank 0 made alone, two steps later.
    shared, alone = (e["bpb"] for e in events if e["event"] == "validation")
    assert shared == pytest.approx(alone, rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the ranks through /proc")
@pytest.mark.parametrize(("torchrun", "victim"), [(False, 0), (False, 1), (True, 1)])
def test_a_rank_that_dies_ends_the_others(data: Path, tmp_path: Path, torchrun: bool, victim: int) -> None:
    run = tmp_path / "hnet-small-1"
    process = started(data, tmp_path, "schedule.steps=100000", "train.checkpoint_every=3", torchrun=torchrun)
    wait_for_step(process, run, 5)
    pids = ranks_of(process)
    os.kill(pids[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert len(said(err)) == 1, err
    [message] = said(err)
    assert f"niblick train --resume {run} --devices 2" in message
    assert "ended by SIGKILL" in message if not torchrun else "which has died" in message
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    for checkpoint in list_checkpoints(run / "checkpoints"):
        read_tensors(checkpoint)


def test_who_lost_a_rank_is_not_ended_before_it_says_so() -> None:
    """The launcher sends SIGTERM to the others while they are still on their way out of the step."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(RuntimeError, match="gloo"), StopSignals():
            raise RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
        with pytest.raises(RuntimeError), StopSignals():
            raise RuntimeError("another error")
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_devices_that_cannot_share_a_step() -> None:
    config = TrainConfig(seq_len=32, batch_tokens=256, micro_batch_tokens=128)
    assert [config.passes(n) for n in (1, 2)] == [2, 1]
    with pytest.raises(ConfigError, match=r"3 devices take 3 × train.micro_batch_tokens=128 = 384 tokens at once"):
        config.passes(3)


def test_more_ranks_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for ranks in (SINGLE, Ranks(1, 3, 1)):
        ranks.expect_device(torch.device("cuda"))
    Ranks(2, 3, 2).expect_device(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"3 ranks want a GPU each, and this machine has 2: give --devices 2, or"):
        Ranks(2, 3, 2).expect_device(torch.device("cuda"))


def test_one_rank_is_all() -> None:
    assert SINGLE.sum([1.0, 2.0]) == [1.0, 2.0]
    assert SINGLE.agree(15, [3.5]) == (15, [3.5])
    assert SINGLE.main
    module = torch.nn.Linear(2, 2)
    assert SINGLE.wrap(module, torch.device("cpu"), False) is module
