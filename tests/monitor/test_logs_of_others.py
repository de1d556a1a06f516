"""Logs of other trainers, in the forms they print, written anew: what is read of them, and nothing is never a pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from niblick.cli import app
from niblick.monitor.log_lines import LogReader

NANOGPT = [
    "tokens per iteration will be: 16,384",
    "number of parameters: 10.65M",
    "step 0: train loss 4.2874, val loss 4.2823",
    "iter 0: loss 4.2652, time 1843.22ms, mfu -100.00%",
    "iter 10: loss 3.1461, time 102.14ms, mfu 14.22%",
    "step 250: train loss 1.9712, val loss 2.0713",
    "saving checkpoint to out",
]
LLM_C = ["s:0 tel:11.0114", *(f"s:{k} trl:{10 - k / 100:.4f} lr:2.57e-06 norm:1.41" for k in range(9)), "s:9 eval:2461"]
LLM_C_PRINTS = [
    *(
        f"step {k:4d}/19560 | loss {10 - k / 10:.6f} (+nanz)| norm 1.5000 (+nanz)| lr 6.00e-04 | 1203.32 ms | "
        "55.1% bf16 MFU | 435123 tok/s"
        for k in range(1, 9)
    ),
    "val loss 7.812345",
]
LITGPT = [
    *(
        f"Epoch 1 | iter {k} step {k // 2} | loss train: {9 - k / 10:.3f}, val: n/a | iter time: 512.33 ms (step) "
        "remaining time: 0:10:12"
        for k in range(9)
    ),
    "iter 20: val loss 7.9123, val time: 1203.11 ms",
]
LITGPT_CSV = [
    "loss,iter,step,epoch,iter_time,tokens,learning_rate,val_loss,val_ppl",
    *(f"{10 - k / 10:.4f},{k},{k // 2},0,0.52,{k * 2048},0.0004,," for k in range(9)),
]
TRANSFORMERS = [
    *(
        f"{{'loss': {4 - k / 10:.4f}, 'grad_norm': 1.21, 'learning_rate': 4.9e-05, 'epoch': {k / 10}}}"
        for k in range(9)
    ),
    "{'eval_loss': 3.21, 'eval_runtime': 4.2, 'epoch': 1.0}",
]
NANOCHAT = [
    *(
        f"step {k:05d}/21400 ({k / 214:.2f}%) | loss: {8 - k / 100:.6f} | lrm: 1.00 | dt: 512.22ms | tok/sec: 1,023,000"
        f" | mfu: 47.11 | total time: {k / 100:.2f}m"
        for k in range(20)
    ),
    "Step 00250 | Validation bpb: 1.1311",
]
MODDED = [
    *(f"step:{k}/1395 train_time:{k * 100}ms step_avg:100.00ms" for k in range(1, 125)),
    "step:125/1395 val_loss:4.3210 train_time:12500ms step_avg:100.00ms",
    "step:1395/1395 val_loss:3.2791 train_time:139500ms step_avg:100.00ms",
    "peak memory allocated: 31010 MiB reserved: 31500 MiB",
]


def written(folder: Path, name: str, lines: list[str]) -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("out.txt", NANOGPT),
        ("main.log", LLM_C),
        ("out.log", LLM_C_PRINTS),
        ("out.txt", LITGPT),
        ("metrics.csv", LITGPT_CSV),
        ("trainer.log", TRANSFORMERS),
    ],
)
def test_nothing_is_read(tmp_path: Path, name: str, lines: list[str]) -> None:
    """The audit refuses, which is no pass, and the monitor shows a run that is starting."""
    path = written(tmp_path, name, lines)
    reader = LogReader()
    for line in lines:
        reader.feed(line)
    assert (reader.facts.step, reader.facts.checks) == (None, [])
    done = CliRunner().invoke(app, ["audit", path])
    assert done.exit_code != 0
    assert "nothing in it could be checked, which is no pass" in str(done.exception) or "no table is read" in str(
        done.exception
    )
    watched = CliRunner().invoke(app, ["watch", "--once", path])
    assert (watched.exit_code, watched.exception) == (0, None)
    assert "starting" in watched.output


def test_steps_and_losses_of_nanochat(tmp_path: Path) -> None:
    path = written(tmp_path, "out.txt", NANOCHAT)
    reader = LogReader()
    for line in NANOCHAT:
        reader.feed(line)
    assert (reader.facts.step, reader.facts.steps) == (19, 21400)
    assert (last := reader.facts.curve.last) is not None and last.loss == pytest.approx(7.81)
    assert "nothing in it could be checked" in str(CliRunner().invoke(app, ["audit", path]).exception)


def test_steps_and_clock_of_modded_nanogpt(tmp_path: Path) -> None:
    """A clock that contradicts itself fails; one that does not is the only thing that passes."""
    path = written(tmp_path, "out.txt", MODDED)
    reader = LogReader()
    for line in MODDED:
        reader.feed(line)
    assert (reader.facts.step, reader.facts.steps, reader.facts.checks) == (1395, 1395, [])
    done = CliRunner().invoke(app, ["audit", path])
    assert done.exit_code == 0
    assert "no loss with a score" in " ".join(done.output.split())
    back = [*MODDED[:-2], "step:1395/1395 val_loss:3.2791 train_time:9500ms step_avg:100.00ms"]
    assert CliRunner().invoke(app, ["audit", written(tmp_path, "back.txt", back)]).exit_code == 1
