"""The code in the documents runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from niblick.data.prepare import prepare

ROOT = Path(__file__).parents[1]


def code_blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def test_contributing_as_a_recipe(tmp_path: Path) -> None:
    """The block, the router, the codec and the recipe of CONTRIBUTING.md, in one file, train and score."""
    recipe = tmp_path / "my_recipe.py"
    recipe.write_text("\n".join(code_blocks("CONTRIBUTING.md")))
    prepare("pydocs", "byte260", tmp_path / "data", max_docs=24, val_docs=4)
    toy = ["model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "score.seq_len=64"]
    toy += ["train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "schedule.steps=3"]
    command = [sys.executable, "-m", "niblick", "train", recipe, "--data", tmp_path / "data", "--json"]
    done = subprocess.run(
        [*map(str, command), "--runs", str(tmp_path / "runs"), *toy], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["artifact"] == "int8+lzma"
    show = [sys.executable, "-m", "niblick", "show", result["run"], "--json"]
    names = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    assert "body.levels.0.encoder.blocks.1.gate.weight" in names
