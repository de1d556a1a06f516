"""A toy run, and a home to send it from: the command line in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshd import Server

from niblick.config.run_config import RunConfig, override
from niblick.recipes.presets import get_preset
from niblick.remote.records import Records

SRC = Path(__file__).parents[2] / "src"
TINY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.dtype=float32", "train.seq_len=32", "train.batch_tokens=128", "train.micro_batch_tokens=128"),
    *("train.warmup_steps=0", "score.seq_len=64", "score.documents=1", "schedule.max_seconds=null"),
]
SHORT = [*TINY, "schedule.steps=6", "train.checkpoint_every=3"]
LONG = [*TINY, "schedule.steps=1000000", "train.checkpoint_every=50", "train.val_every=0"]


def toy_config(sets: list[str], data: Path) -> RunConfig:
    """`hnet-small`, tiny."""
    return override(get_preset("hnet-small"), [*sets, f"data.path={json.dumps(str(data))}"])


def quiet(text: str) -> None:
    """What launches say, to nobody."""


@dataclass
class Home:
    """A working directory, and niblick in it."""

    folder: Path
    server: Server

    @property
    def records(self) -> Records:
        return Records(self.folder / "runs")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "niblick", "remote", *words]

    def environment(self) -> dict[str, str]:
        secrets = {"HF_TOKEN": "hf_secret_of_the_environment", "RUNPOD_API_KEY": "rp_secret_of_the_environment"}
        return os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"} | secrets

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `niblick remote …` and return at once."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(*words), cwd=self.folder, env=self.environment(), **pipes)

    def remote(self, *words: str, code: int = 0) -> str:
        """`niblick remote …` to its end. Returns what it printed; all of it, if it was to fail."""
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}"
        return out if code == 0 else out + err

    def launch(self, *words: str, code: int = 0) -> str:
        """`niblick remote launch` to the server, with this interpreter there."""
        return self.remote("launch", *words, *self.server.options(python=sys.executable), code=code)
