"""The recipes of docs/extend.md run: each loads, trains a step with what it names, and steps like it scores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from niblick.model.lm import LM
from niblick.presets import load_recipe
from niblick.train.guides import make_guide
from niblick.train.optim import Optimizers

DOCUMENT = Path(__file__).parents[1] / "docs" / "extend.md"
PARTS = re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize(("title", "code"), PARTS, ids=[title for title, _ in PARTS])
def test_part(title: str, code: str, tmp_path: Path) -> None:
    assert len(code.splitlines()) < 40
    path = tmp_path / "my_recipe.py"
    path.write_text(code, encoding="utf-8")
    config = load_recipe(path)
    torch.manual_seed(0)
    model = LM(config.model)
    ids_BL = torch.randint(4, 260, (2, 33))
    guide = make_guide(config.train.init_from, config.model) if config.train.init_from else None
    losses, _ = model(ids_BL[:, :-1], ids_BL[:, 1:], guide_BL=guide(ids_BL[:, :-1]) if guide else None)
    losses.total.backward()
    Optimizers(model, config.optim).step(0, 1.0)
    model = model.double()
    with torch.no_grad():
        logits, state = model(ids_BL), model.new_state(2)
        for t in range(ids_BL.shape[1]):
            assert torch.allclose(model.step(ids_BL[:, t], state), logits[:, t], atol=1e-9)


def test_all_parts_are_there() -> None:
    assert len(PARTS) >= 3
